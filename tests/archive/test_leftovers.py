"""Files of runs that end before their time: nothing stays behind that is not listed, and what is gets its manifest."""

import asyncio
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest
from sqlalchemy import Table, delete, select, update

from db.archives.catalog import Catalog
from db.connection import get_async_session
from db.models import ArchivePart, Task
from db.repositories import job_run
from db.settings import DatabaseSettings
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted import archive_deleted, sizes
from jobs.archive_deleted.job import Archive
from jobs.archive_deleted.part_files import part_name
from jobs.archive_leftovers import close_ended_runs
from jobs.archive_manifests import find_unlisted
from jobs.outcomes import JobCancelled, JobFailed, RunInterrupted
from jobs.settings import JobSettings
from tests.archive.returns import archive, erase
from tests.archive.runs import adopt_copy, context_of, keys_in_files, make_tasks, rows_of
from tests.databases.runs import admitted, born, move_everything
from worker import ledger
from worker.ledger import Admitted
from worker.retries import Outcome
from worker.runtime import Runtime
from worker.settings import Settings

TASKS = cast("Table", Task.__table__)
REQUEST = ArchiveDeleted(destination="files")
pytestmark = pytest.mark.usefixtures("manager")


@pytest.fixture(autouse=True)
def small_batches(settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "FIRST_PAGES", 4)
    monkeypatch.setattr(sizes, "FIRST_DELETIONS", 8)
    pages_or_rows = 8 if settings.url.get_backend_name() == "postgresql" else 30
    monkeypatch.setattr(sizes, "MOST_ROWS", pages_or_rows)


@pytest.fixture
async def ids() -> list[UUID]:
    return await make_tasks(1500, deleted=range(1500))


async def begun() -> Admitted:
    return await admitted("ada", born_run=replace(born(), kind=ArchiveDeleted.kind))


@pytest.fixture
async def stopped(ids: list[UUID], job_settings: JobSettings) -> Admitted:
    return await begun_and_stopped(job_settings)


async def begun_and_stopped(settings: JobSettings) -> Admitted:
    """A run that a worker has let go in the middle."""
    given = await begun()
    folder = folder_of(settings, given)
    context = context_of(given, settings, should_stop=lambda: len(list(folder.glob("*.zst"))) > 2)
    with pytest.raises(RunInterrupted):
        await archive_deleted(context, REQUEST)
    return given


def folder_of(settings: JobSettings, given: Admitted) -> Path:
    return settings.archives_dir / str(given.run_id)


async def listed_of(given: Admitted) -> set[str]:
    async with get_async_session(read_only=True) as session:
        return set(await session.scalars(select(ArchivePart.file).where(ArchivePart.run_id == given.run_id)))


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def fail(*_: object, **__: object) -> None:
    raise JobFailed("some_code", "the disk is on fire")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def assert_closed(settings: JobSettings, given: Admitted) -> None:
    """Nothing but the listed files lies there, and the manifest names them."""
    folder, listed = folder_of(settings, given), await listed_of(given)
    assert listed
    assert names_in(folder) == {"manifest.json", *listed}
    manifest = json.loads((folder / "manifest.json").read_bytes())
    assert {part["file"] for part in manifest["parts"]} == listed
    described = manifest["tables"]["tasks"]
    assert (described["key"], described["rows"]) == (["id"], sum(part["rows"] for part in manifest["parts"]))
    assert set(described["columns"]) == set(TASKS.columns.keys())


async def test_an_attempt_leaves_nothing_that_no_batch_has_begun_with(
    stopped: Admitted, job_settings: JobSettings
) -> None:
    assert names_in(folder_of(job_settings, stopped)) == await listed_of(stopped)


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_a_run_that_ends_for_good_is_closed(
    how: str, ids: list[UUID], job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, real = await begun(), Archive.publish

    async def end_it(self: Archive) -> None:
        await real(self)
        is_time = self.counters.get("files", 0) >= 2
        if is_time and how == "failed":
            raise JobFailed("some_code", "the disk is on fire")
        if is_time:
            async with get_async_session() as session:
                await job_run.request_cancel(session, [given.run_id])

    monkeypatch.setattr(Archive, "publish", end_it)
    (folder := folder_of(job_settings, given)).mkdir(parents=True)
    (folder / part_name("tasks", 900, given.fence)).write_bytes(b"of a batch whose commit failed")
    with pytest.raises(JobFailed if how == "failed" else JobCancelled, match=r"on fire|cancelled while"):
        await archive_deleted(context_of(given, job_settings), REQUEST)
    await assert_closed(job_settings, given)


async def test_the_error_that_ends_a_run_is_told_even_if_nothing_can_be_closed(
    ids: list[UUID], job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Archive, "publish", fail)
    monkeypatch.setattr("jobs.archive_deleted.closing.close_folder", close)
    with pytest.raises(JobFailed, match="the disk is on fire"):
        await archive(job_settings, destination="files")


@pytest.mark.parametrize("place", ["ledger", "history"])
async def test_a_run_that_ended_while_nobody_performed_it_is_closed_later(
    place: str, stopped: Admitted, job_settings: JobSettings
) -> None:
    folder, catalog = folder_of(job_settings, stopped), Catalog.of()
    names = [part_name("tasks", 900, stopped.fence), f".{part_name('tasks', 901, stopped.fence)}.partial"]
    later = [part_name("tasks", 902, stopped.fence + 1), "notes.txt"]
    for name in names + later:
        (folder / name).write_bytes(b"rows")
    everything = names_in(folder)
    assert await close_ended_runs(job_settings, catalog) == 0  # it is live
    await ledger.finish(stopped, Outcome("cancelled"))
    if place == "history":
        assert await move_everything() == 1

    assert await close_ended_runs(job_settings, catalog) == 1

    assert names_in(folder) == everything - set(names) | {"manifest.json"}
    for name in later:
        (folder / name).unlink()
    await assert_closed(job_settings, stopped)
    assert await close_ended_runs(job_settings, catalog) == 0


async def test_a_worker_closes_them_unless_its_database_is_a_copy(stopped: Admitted, job_settings: JobSettings) -> None:
    await ledger.finish(stopped, Outcome("failed", error={"type": "x", "message": "y"}))
    settings = Settings(_env_file=None, holdfast_data_dir=job_settings.holdfast_data_dir)
    runtime = Runtime(settings, owns_queue=False)
    runtime.is_held = True
    await runtime.upkeep._close_archives()
    assert "manifest.json" not in names_in(folder_of(job_settings, stopped))
    runtime.is_held = False
    await runtime.upkeep._close_archives()
    await assert_closed(job_settings, stopped)


async def test_the_erased_are_in_no_file_of_a_run_that_is_over(
    ids: list[UUID], stopped: Admitted, job_settings: JobSettings
) -> None:
    left = list(await rows_of(TASKS))
    (folder_of(job_settings, stopped) / part_name("tasks", 900, stopped.fence)).write_bytes(b"rows that are left")
    await ledger.finish(stopped, Outcome("cancelled"))
    assert (await erase(job_settings, *left[:10])).erased == {"tasks": 10}
    await assert_closed(job_settings, stopped)


async def test_a_folder_of_a_run_that_is_not_known_is_left_alone(stopped: Admitted, job_settings: JobSettings) -> None:
    """A copied one, or one that the database has forgotten; or of another kind of run."""
    stray = part_name("tasks", 900, 1)
    (folder_of(job_settings, stopped) / stray).write_bytes(b"rows")
    await ledger.finish(stopped, Outcome("cancelled"))
    copied = job_settings.archives_dir / str(uuid7())
    copied.mkdir()
    (copied / stray).write_bytes(b"the only copy")
    async with get_async_session() as session:
        await session.execute(update(job_runs).values(kind="other"))
    assert await close_ended_runs(job_settings, Catalog.of()) == 0
    assert (copied / stray).exists()
    assert (folder_of(job_settings, stopped) / stray).exists()


async def test_files_that_a_manifest_names_are_never_removed(ids: list[UUID], job_settings: JobSettings) -> None:
    """The database was restored from a backup that knows the run, and not all of its files."""
    given = await begun()
    await archive_deleted(context_of(given, job_settings), ArchiveDeleted(destination="files", batch_rows=500))
    await ledger.finish(given, Outcome("succeeded"))
    before = names_in(folder_of(job_settings, given))
    async with get_async_session() as session:
        await session.execute(delete(ArchivePart).where(ArchivePart.number > 1))
    assert await close_ended_runs(job_settings, Catalog.of()) == 0
    assert names_in(folder_of(job_settings, given)) == before
    async with get_async_session(read_only=True) as session:
        (unlisted,) = (await find_unlisted(session, job_settings)).unlisted
    assert {part.file for part in unlisted.parts} == before - await listed_of(given) - {"manifest.json"}


async def make_copy(of: Admitted, settings: JobSettings, *, has_ended: bool) -> dict[str, bytes]:
    """Let this database be a copy, made when a single file was listed; returns what its original has in the folder.

    What lies there besides, the original lists: it goes on with the run, or has ended it.
    """
    if has_ended:
        again = await admitted("ada", run_id=of.run_id)
        await archive_deleted(context_of(again, settings), REQUEST)
    first = min(await listed_of(of))
    async with get_async_session() as session:
        await adopt_copy(session)
        await session.execute(delete(ArchivePart).where(ArchivePart.file != first))
    return contents_of(folder_of(settings, of))


@pytest.mark.parametrize("has_ended", [False, True], ids=["original is at it", "original has ended"])
@pytest.mark.parametrize("state", ["cancelled", "failed", "quarantined"])
async def test_a_copy_removes_no_file_that_its_original_may_list(
    state: str, has_ended: bool, stopped: Admitted, job_settings: JobSettings
) -> None:
    folder = folder_of(job_settings, stopped)
    before = await make_copy(stopped, job_settings, has_ended=has_ended)
    async with get_async_session() as session:
        await session.execute(update(job_runs).values(state=state, fence=9, finished_at=job_runs.c.enqueued_at))
    await close_ended_runs(job_settings, Catalog.of())
    assert contents_of(folder).items() >= before.items()
    assert await close_ended_runs(job_settings, Catalog.of()) == 0


@pytest.mark.parametrize("ends", ["done", "failed"])
@pytest.mark.parametrize("has_ended", [False, True], ids=["original is at it", "original has ended"])
async def test_nor_does_a_run_that_the_copy_goes_on_with(
    ends: str, has_ended: bool, stopped: Admitted, job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, request = folder_of(job_settings, stopped), ArchiveDeleted(destination="files", max_rows=1)
    before = await make_copy(stopped, job_settings, has_ended=has_ended)
    async with get_async_session() as session:
        await session.execute(update(job_runs).values(fence=5))
    if ends == "failed":
        monkeypatch.setattr("jobs.archive_deleted.job.close_files", fail)
    given = replace(stopped, fence=5)
    with pytest.raises(JobFailed) if ends == "failed" else nullcontext():
        await archive_deleted(context_of(given, job_settings), request)
    assert contents_of(folder).items() >= before.items()
    assert "manifest.json" in names_in(folder)


async def test_a_run_that_began_after_the_adoption_is_closed(ids: list[UUID], job_settings: JobSettings) -> None:
    async with get_async_session() as session:
        await adopt_copy(session)
    given = await begun_and_stopped(job_settings)
    (folder_of(job_settings, given) / part_name("tasks", 900, given.fence)).write_bytes(b"rows")
    await ledger.finish(given, Outcome("cancelled"))
    assert await close_ended_runs(job_settings, Catalog.of()) == 1
    await assert_closed(job_settings, given)


async def test_two_may_close_the_same_folders(stopped: Admitted, job_settings: JobSettings) -> None:
    (folder_of(job_settings, stopped) / part_name("tasks", 900, stopped.fence)).write_bytes(b"rows")
    await ledger.finish(stopped, Outcome("cancelled"))
    await asyncio.gather(*(close_ended_runs(job_settings, Catalog.of()) for _ in range(2)))
    await assert_closed(job_settings, stopped)
    assert len(await keys_in_files(job_settings)) > 0
