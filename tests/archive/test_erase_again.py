"""What a backup of the database and of the files brings back is erased again, wherever it lies."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import Table, delete, insert, select

from db.archives.catalog import Catalog
from db.archives.erasures import merge_list, read_list
from db.connection import DatabaseManager, get_async_session
from db.models import TASKS_ARCHIVE, ArchivePart, Erasure
from holdfast.requests import ArchiveDeleted, EraseArchived, EraseReport
from jobs import archive_files
from jobs.archive_deleted import archive_deleted
from jobs.archive_deleted.part_files import read_part
from jobs.erase_archived import again as erasing
from jobs.erase_archived import erase_archived
from jobs.outcomes import JobFailed, JobSnoozed
from jobs.settings import JobSettings
from tests.archive.models import CATALOG, DOCUMENTS_ARCHIVE, REVISIONS_ARCHIVE
from tests.archive.returns import archive, erase, make_graph, restore
from tests.archive.runs import context_of, count, keys_in_files, make_tasks
from tests.databases.runs import admitted
from worker import ledger
from worker.ledger import Admitted
from worker.retries import Outcome

PARTS = cast("Table", ArchivePart.__table__)
pytestmark = pytest.mark.usefixtures("manager")


async def again(
    settings: JobSettings, *, given: Admitted | None = None, catalog: Catalog | None = CATALOG, **fields: Any
) -> EraseReport:
    context = context_of(given or await admitted("ada"), settings)
    return await erase_archived(context, EraseArchived(again=True, **fields), catalog=catalog)


erase_tasks_again = partial(again, catalog=None)


@asynccontextmanager
async def backup_of(settings: JobSettings, *tables: Table) -> AsyncIterator[None]:
    """What happens in the block is undone in the folder and the database by a restored backup; not so on the list."""
    copy = Path(f"{settings.archives_dir}.backup")
    shutil.copytree(settings.archives_dir, copy)
    async with get_async_session() as session:
        rows = {table: [dict(row) for row in (await session.execute(select(table))).mappings()]
                for table in (PARTS, *tables)}  # fmt: skip
    yield
    async with get_async_session(read_only=True) as session:
        kept_list = await read_list(session)
    shutil.rmtree(settings.archives_dir)
    shutil.move(copy, settings.archives_dir)
    async with get_async_session() as session:
        await session.execute(delete(Erasure))
        for table, before in rows.items():
            await session.execute(delete(table))
            if before:
                await session.execute(insert(table), before)
        await merge_list(session, kept_list)


async def put_on_the_list(table: str, *keys: UUID) -> None:
    listed = [{"table_name": table, "row_key": str(key), "reason": "-", "erased_at": datetime.now(UTC)} for key in keys]
    async with get_async_session() as session:
        await session.execute(insert(Erasure), listed)


async def test_rows_in_files_that_came_back_are_erased_again(job_settings: JobSettings) -> None:
    ids = await make_tasks(30, deleted=range(30))
    await archive(job_settings, destination="files", batch_rows=10)
    async with backup_of(job_settings):
        await erase(job_settings, ids[3], ids[4], ids[25])
    assert set(map(str, ids)) == await keys_in_files(job_settings)

    preview = await erase_tasks_again(job_settings, dry_run=True)
    assert (preview.erased, preview.files, preview.dry_run) == ({"tasks": 3}, 2, True)
    assert set(map(str, ids)) == await keys_in_files(job_settings)
    done = await erase_tasks_again(job_settings)

    assert (done.erased, done.files, done.refused) == ({"tasks": 3}, 2, ())
    left = {str(one) for one in ids} - {str(ids[number]) for number in (3, 4, 25)}
    assert left == await keys_in_files(job_settings)
    assert (await erase_tasks_again(job_settings)).erased == {}
    assert (await restore(job_settings, ids[5])).restored == {"tasks": 1}


async def test_what_belongs_to_them_goes_wherever_it_lies(graph: DatabaseManager, job_settings: JobSettings) -> None:
    """The folders in a file, the documents in the archive table, their revisions in a file."""
    made, other = await make_graph(), await make_graph()
    await archive(job_settings, catalog=CATALOG, tables=("documents",), destination="files")
    await archive(job_settings, catalog=CATALOG, tables=("folders",), destination="files")
    assert (await restore(job_settings, other.outer, table="folders", catalog=CATALOG)).refused == ()
    await put_on_the_list("folders", made.outer)

    done = await again(job_settings)

    assert done.erased == {"folders": 2, "documents": 2, "revisions": 4}
    kept = {str(other.earlier), *map(str, other.revisions[2:])}
    assert await keys_in_files(job_settings) == kept
    assert (await restore(job_settings, made.revisions[0], table="folders", catalog=CATALOG)).restored == {}


async def test_children_in_files_go_with_a_parent_in_its_table(
    graph: DatabaseManager, job_settings: JobSettings
) -> None:
    made = await make_graph()
    await archive(job_settings, catalog=CATALOG, tables=("documents",), destination="files")
    await put_on_the_list("folders", made.outer)
    assert (await again(job_settings, dry_run=True)).erased == {"folders": 2, "documents": 2, "revisions": 4}
    done = await again(job_settings)
    assert (done.erased, await keys_in_files(job_settings)) == (
        {"folders": 2, "documents": 2, "revisions": 4},
        set(),
    )
    async with get_async_session(read_only=True) as session:
        assert str(made.revisions[0]) in {row.row_key for row in await session.scalars(select(Erasure))}


@pytest.mark.parametrize("step", ["take_out", "settle"])
@pytest.mark.parametrize("at", [1, 2])
async def test_a_worker_that_dies_repeats_nothing_and_loses_nothing(
    step: str, at: int, graph: DatabaseManager, job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a file that is not listed yet, or before the one that it replaces is removed."""
    made = await make_graph()
    written = (await archive(job_settings, catalog=CATALOG, destination="files")).files
    await put_on_the_list("folders", made.outer)
    given, calls, real = await admitted("ada"), list[object](), getattr(erasing, step)

    async def die(*args: Any, **more: Any) -> Any:
        calls.append(args)
        done = await real(*args, **more) if step == "take_out" or len(calls) != at else None
        if len(calls) == at:
            raise asyncio.CancelledError
        return done

    with monkeypatch.context() as patched:
        patched.setattr(erasing, step, die)
        with pytest.raises(asyncio.CancelledError):
            await again(job_settings, given=given)
    await ledger.finish(given, Outcome("interrupted"))
    report = await again(job_settings, given=await admitted("bob", run_id=given.run_id))
    assert (report.erased, report.files) == ({"folders": 2, "documents": 2, "revisions": 4}, written)
    assert {path.name for path in job_settings.archives_dir.glob("*/*")} == {"manifest.json"}


async def test_a_run_goes_on_that_a_version_has_begun_which_knew_no_files(job_settings: JobSettings) -> None:
    ids = await make_tasks(4, deleted=range(4))
    await archive(job_settings, destination="files")
    await put_on_the_list("tasks", ids[0])
    given = await admitted("ada")
    async with context_of(given, job_settings).batch() as batch:
        batch.cursor, batch.counters = {"erased": {"tasks": 7}, "kept": []}, {"erased:tasks": 7}
    report = await erase_tasks_again(job_settings, given=given)
    assert (report.erased, report.files) == ({"tasks": 8}, 1)


async def test_files_of_a_run_that_is_not_over_are_waited_for(job_settings: JobSettings) -> None:
    ids = await make_tasks(4, deleted=range(4))
    given = await admitted("ada")
    await archive_deleted(context_of(given, job_settings), ArchiveDeleted(destination="files"))
    await put_on_the_list("tasks", ids[0])
    with pytest.raises(JobSnoozed):
        await erase_tasks_again(job_settings)
    await ledger.finish(given, Outcome("succeeded"))
    assert (await erase_tasks_again(job_settings)).erased == {"tasks": 1}


async def test_rows_that_go_to_files_meanwhile_are_found(
    job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await make_tasks(3, deleted=range(3))
    await archive(job_settings, destination="files", max_rows=1, batch_rows=1)
    await put_on_the_list("tasks", *ids[1:])
    real, looks = erasing.EraseAgain._look, list[object]()

    async def look(self: erasing.EraseAgain) -> archive_files.FoundInFiles:
        found = await real(self)
        looks.append(found)
        if len(looks) == 1:
            await archive(job_settings, destination="files")
        return found

    monkeypatch.setattr(erasing.EraseAgain, "_look", look)
    report = await erase_tasks_again(job_settings)
    assert (report.erased, len(looks)) == ({"tasks": 2}, 2)
    assert await keys_in_files(job_settings) == {str(ids[0])}


async def test_each_file_is_read_once_however_long_the_list_is(
    job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await make_tasks(60, deleted=range(60))
    await archive(job_settings, destination="files", batch_rows=20)
    await put_on_the_list("tasks", *[UUID(int=number) for number in range(2_000)], *ids[:50])
    reads = list[str]()

    def watched(folder: Path, part: Any) -> bytes:
        reads.append(part.name)
        return read_part(folder, part)

    monkeypatch.setattr(archive_files, "read_part", watched)
    report = await erase_tasks_again(job_settings)
    assert (report.erased, report.files) == ({"tasks": 50}, 3)
    assert len(reads) == 2 * 3  # once to find them, and once to write the file anew
    assert await keys_in_files(job_settings) == {str(one) for one in ids[50:]}


async def test_a_damaged_file_ends_the_run_before_anything_goes(job_settings: JobSettings) -> None:
    ids = await make_tasks(4, deleted=range(4))
    await archive(job_settings, max_rows=2, batch_rows=1)
    await archive(job_settings, destination="files")
    await put_on_the_list("tasks", *ids)
    (path,) = job_settings.archives_dir.glob("*/*.zst")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(JobFailed, match=r"has the SHA-256 .*; 0 files were done") as caught:
        await erase_tasks_again(job_settings)
    assert (caught.value.code, await count(TASKS_ARCHIVE)) == ("part_unreadable", 2)


@pytest.mark.parametrize("destination", ["tables", "files"])
async def test_a_row_that_restore_refuses_as_erased_is_erased_again(
    destination: str, graph: DatabaseManager, job_settings: JobSettings
) -> None:
    made = await make_graph()
    await archive(job_settings, catalog=CATALOG, destination=destination)
    await put_on_the_list("documents", made.document)
    words: dict[str, Any] = {"table": "documents", "catalog": CATALOG}
    gone = {str(one) for one in (made.document, *made.revisions[:2])}

    refused = (await restore(job_settings, made.document, **words, dry_run=True)).refused
    assert ([row.code for row in refused], await archived_keys(job_settings) & gone) == (["erased"], gone)
    refused = (await restore(job_settings, made.document, **words)).refused

    assert ([row.code for row in refused], await archived_keys(job_settings) & gone) == (["erased"], set())
    assert {str(one) for one in (made.earlier, *made.revisions[2:])} <= await archived_keys(job_settings)


async def test_an_erased_child_goes_even_where_its_parent_is_refused(
    graph: DatabaseManager, job_settings: JobSettings
) -> None:
    made = await make_graph()
    await archive(job_settings, catalog=CATALOG, destination="files")
    await put_on_the_list("documents", made.document)
    (refused,) = (await restore(job_settings, made.folder, table="folders", catalog=CATALOG)).refused
    assert refused.code == "parent_missing"
    gone = {str(one) for one in (made.document, *made.revisions[:2])}
    left = await archived_keys(job_settings)
    assert (left & gone, len(left)) == (set(), 5)


async def archived_keys(settings: JobSettings) -> set[str]:
    """The documents and revisions that lie in archive tables, and all rows that lie in files."""
    async with get_async_session(read_only=True) as session:
        in_tables = [key for table in (DOCUMENTS_ARCHIVE, REVISIONS_ARCHIVE)
                     for key in await session.scalars(select(table.c.id))]  # fmt: skip
    return {*map(str, in_tables), *await keys_in_files(settings)}
