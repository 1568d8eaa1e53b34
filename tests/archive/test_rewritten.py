"""Files that restorations and erasures write anew: one that is not listed goes, however its run ends."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import zstandard
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from db.archives.catalog import Catalog
from db.connection import get_async_session
from db.repositories import job_run
from holdfast.outbox import job_runs
from holdfast.requests import EraseArchived, RestoreArchived
from jobs import archive_parts
from jobs import archive_records as records
from jobs.archive_deleted.part_files import PartUnreadable
from jobs.archive_leftovers import close_ended_runs
from jobs.erase_archived import erase_archived
from jobs.erase_archived import job as erasing
from jobs.outcomes import JobCancelled, JobFailed
from jobs.restore_archived import job as restoring
from jobs.restore_archived import restore_archived
from jobs.settings import JobSettings
from tests.archive.returns import archive, erase
from tests.archive.runs import adopt_copy, context_of, keys_in_files, make_tasks
from tests.databases.runs import admitted, born, move_everything
from worker import ledger
from worker.ledger import Admitted
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")
KINDS = pytest.mark.parametrize("kind", [EraseArchived.kind, RestoreArchived.kind])


@pytest.fixture
async def ids(job_settings: JobSettings) -> list[UUID]:
    """Rows in one file."""
    made = await make_tasks(4, deleted=range(4))
    await archive(job_settings, destination="files")
    return made


async def begin(kind: str) -> Admitted:
    return await admitted("ada", born_run=replace(born(), kind=kind))


async def perform(given: Admitted, kind: str, settings: JobSettings, *ids: UUID) -> Any:
    """Erase or restore."""
    context, texts = context_of(given, settings), tuple(map(str, ids))
    if kind == EraseArchived.kind:
        return await erase_archived(context, EraseArchived(table="tasks", ids=texts, reason="asked for"))
    return await restore_archived(context, RestoreArchived(table="tasks", ids=texts))


def after_first(monkeypatch: pytest.MonkeyPatch, then: Callable[[], Awaitable[None]]) -> None:
    """Let something happen once files were written anew, and before that is committed; the first time only."""
    real, done = archive_parts.take_out, list[bool]()

    async def take_out(*args: Any, **more: Any) -> Any:
        taken = await real(*args, **more)
        if not done:
            done.append(True)
            await then()
        return taken

    for module in (erasing, restoring):
        monkeypatch.setattr(module, "take_out", take_out)


def raises(error: BaseException) -> Callable[[], Awaitable[None]]:
    async def then() -> None:
        raise error

    return then


def files_with(settings: JobSettings, row: UUID) -> list[Path]:
    """All files, listed or not, in which a row lies."""
    unpack = zstandard.ZstdDecompressor().decompress
    return [
        one for one in settings.archives_dir.glob("*/*.ndjson.zst*") if str(row).encode() in unpack(one.read_bytes())
    ]


async def leave(kind: str, settings: JobSettings, monkeypatch: pytest.MonkeyPatch, row: UUID) -> Admitted:
    """A run whose worker died with a new file that no transaction has listed."""
    given = await begin(kind)
    with monkeypatch.context() as patch:
        after_first(patch, raises(asyncio.CancelledError()))
        with pytest.raises(asyncio.CancelledError):
            await perform(given, kind, settings, row)
    return given


@KINDS
@pytest.mark.parametrize("state", ["cancelled", "failed", "quarantined", "in the history", "erase"])
async def test_what_a_dead_worker_left_goes_when_its_run_is_over(
    kind: str, state: str, ids: list[UUID], job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = await leave(kind, job_settings, monkeypatch, ids[0])
    (left,) = (one for one in files_with(job_settings, ids[1]) if given.run_id.hex in one.name)
    left.with_name(f".{left.name}.partial").write_bytes(left.read_bytes())
    later = left.with_name(left.name.replace(f"{given.run_id.hex}-1-", f"{given.run_id.hex}-2-"))
    later.write_bytes(left.read_bytes())
    assert await close_ended_runs(job_settings, Catalog.of()) == 0  # it is live
    await ledger.finish(given, Outcome("failed", error={"type": "x", "message": "y"}))
    if state in {"cancelled", "quarantined"}:
        async with get_async_session() as session:
            await session.execute(update(job_runs).where(job_runs.c.id == given.run_id).values(state=state))
    if state == "in the history":
        assert await move_everything() > 0
    if state == "erase":
        assert (await erase(job_settings, ids[1])).erased == {"tasks": 1}
        assert files_with(job_settings, ids[1]) == [later]
    else:
        assert await close_ended_runs(job_settings, Catalog.of()) == 1
        assert len(files_with(job_settings, ids[1])) == 2  # the listed one, and that of a later attempt
    later.unlink()
    assert len(files_with(job_settings, ids[2])) == 1
    assert str(ids[2]) in await keys_in_files(job_settings)


@KINDS
async def test_a_copy_leaves_it_alone(
    kind: str, ids: list[UUID], job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = await leave(kind, job_settings, monkeypatch, ids[0])
    before = files_with(job_settings, ids[1])
    async with get_async_session() as session:
        await adopt_copy(session)
    again = await admitted("ada", run_id=given.run_id)
    await perform(again, kind, job_settings, UUID(int=1))
    await ledger.finish(again, Outcome("cancelled"))
    assert await close_ended_runs(job_settings, Catalog.of()) == 0
    assert files_with(job_settings, ids[1]) == before


@KINDS
async def test_a_batch_that_the_database_refuses_leaves_no_file(
    kind: str, ids: list[UUID], job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_first(monkeypatch, raises(IntegrityError("INSERT", {}, Exception("a rule"))))
    report = await perform(await begin(kind), kind, job_settings, *ids[:2])
    assert [row.code for row in report.refused] == ["refused"]
    assert len(files_with(job_settings, ids[0])) == len(files_with(job_settings, ids[2])) == 1


@KINDS
async def test_a_run_that_fails_leaves_no_file(
    kind: str, ids: list[UUID], job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_first(monkeypatch, raises(PartUnreadable("another one is damaged")))
    with pytest.raises(JobFailed, match="damaged"):
        await perform(await begin(kind), kind, job_settings, ids[0])
    assert len(files_with(job_settings, ids[1])) == 1


@KINDS
async def test_what_was_replaced_goes_although_the_run_is_cancelled(
    kind: str, ids: list[UUID], job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, settle = await begin(kind), archive_parts.settle

    async def cancelled_before(*args: Any) -> None:
        async with get_async_session() as session:
            await job_run.request_cancel(session, [given.run_id])
        await settle(*args)

    monkeypatch.setattr(records, "settle", cancelled_before)
    with pytest.raises(JobCancelled):
        await perform(given, kind, job_settings, *ids[:2])
    assert (files_with(job_settings, ids[0]), len(files_with(job_settings, ids[1]))) == ([], 1)
