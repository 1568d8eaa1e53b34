"""Deleting rows for good, wherever they lie: they never come back, not even with a backup."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy import Table, delete, insert, select

from db.archives.erasing import erase_again
from db.archives.erasures import merge_list, read_list
from db.connection import DatabaseManager, get_async_session
from db.models import TASKS_ARCHIVE, ArchivePart, Erasure, Task
from holdfast.requests import EraseArchived, EraseReport
from jobs.archive_files import FileSearch, FoundInFiles, lines_of, list_parts
from jobs.erase_archived import erase_archived
from jobs.outcomes import RunInterrupted
from jobs.settings import JobSettings
from tests.archive.models import (
    CATALOG,
    CITATIONS,
    DOCUMENTS,
    DOCUMENTS_ARCHIVE,
    FOLDERS,
    FOLDERS_ARCHIVE,
    REVISIONS,
    REVISIONS_ARCHIVE,
)
from tests.archive.returns import archive, erase, make_graph, restore
from tests.archive.runs import context_of, count, make_tasks, rows_of
from tests.databases.runs import admitted

TASKS = cast("Table", Task.__table__)
DESTINATIONS = ("tables", "files")
IN_THE_WAY = "is referred to by citations {}, which is not deleted: delete that one first"
pytestmark = pytest.mark.usefixtures("manager")


async def on_the_list() -> set[tuple[str, str]]:
    async with get_async_session(read_only=True) as session:
        return {(row.table_name, row.row_key) for row in await session.scalars(select(Erasure))}


async def text_of_files(settings: JobSettings) -> str:
    async with get_async_session(read_only=True) as session:
        parts = await list_parts(session, settings, ["tasks", "folders", "documents", "revisions"])
    return "".join(line for part in parts for line in lines_of(part))


async def again(settings: JobSettings) -> EraseReport:
    return await erase_archived(context_of(await admitted("ada"), settings), EraseArchived(again=True), catalog=CATALOG)


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_rows_are_gone_and_do_not_come_back(destination: str, job_settings: JobSettings) -> None:
    ids = await make_tasks(10, deleted=range(10))
    await archive(job_settings, destination=destination)

    report = await erase(job_settings, ids[3], ids[7], erased_by="ada")

    assert (report.erased, report.listed, report.refused, report.absent) == ({"tasks": 2}, 2, (), ())
    assert report.files == (2 if destination == "files" else 0)
    assert await on_the_list() == {("tasks", str(ids[3])), ("tasks", str(ids[7]))}
    assert str(ids[3]) not in await text_of_files(job_settings)
    refused = (await restore(job_settings, ids[3])).refused
    assert [row.message for row in refused] == [
        f"tasks {ids[3]} was erased for good on {datetime.now(UTC):%Y-%m-%d} (asked for): it does not come back"
    ]
    assert (await restore(job_settings, *(one for one in ids if one not in {ids[3], ids[7]}))).restored == {"tasks": 8}
    names = {path.name for path in job_settings.archives_dir.glob("*/*")}
    assert names == ({"manifest.json"} if destination == "files" else set())


async def test_erasing_twice_changes_nothing(job_settings: JobSettings) -> None:
    ids = await make_tasks(2, deleted=range(2))
    await archive(job_settings)
    await erase(job_settings, ids[0])
    report = await erase(job_settings, ids[0])
    assert (report.erased, report.listed, report.absent) == ({}, 0, (str(ids[0]),))


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_children_go_with_their_parent(
    graph: DatabaseManager, destination: str, job_settings: JobSettings
) -> None:
    made = await make_graph()
    await archive(job_settings, catalog=CATALOG, tables=("documents",), destination=destination)
    # The folders are in their table still, the rest in the archive.
    report = await erase(job_settings, made.outer, table="folders", catalog=CATALOG)
    assert report.erased == {"folders": 2, "documents": 2, "revisions": 4}
    assert report.listed == 8
    for table in (FOLDERS, DOCUMENTS, REVISIONS, FOLDERS_ARCHIVE, DOCUMENTS_ARCHIVE, REVISIONS_ARCHIVE):
        assert await count(table) == 0
    assert await text_of_files(job_settings) == ""


async def test_what_is_not_deleted_is_refused(graph: DatabaseManager, job_settings: JobSettings) -> None:
    living, made = await make_graph(deleted_at=None), await make_graph()
    async with get_async_session() as session:
        await session.execute(insert(CITATIONS).values(document_id=made.document))
        citation = (await session.scalars(select(CITATIONS.c.id))).one()
    report = await erase(job_settings, living.folder, made.outer, table="folders", catalog=CATALOG)
    assert [row.message for row in report.refused] == [
        f"folders {living.folder} is in its table and not deleted: delete it there first",
        f"folders {made.outer} {IN_THE_WAY.format(citation)}",
    ]
    assert (report.erased, await on_the_list()) == ({}, set())


async def test_what_is_found_nowhere_is_listed_all_the_same(job_settings: JobSettings) -> None:
    (task,) = await make_tasks(1, deleted=[0])
    await archive(job_settings, destination="purge")
    preview = await erase(job_settings, task, dry_run=True)
    assert (preview.absent, await on_the_list()) == ((str(task),), set())
    report = await erase(job_settings, task)
    assert (report.erased, report.listed, report.absent) == ({}, 1, (str(task),))


async def test_a_dry_run_changes_nothing(graph: DatabaseManager, job_settings: JobSettings) -> None:
    made = await make_graph()
    await archive(job_settings, catalog=CATALOG, tables=("documents",), destination="files")
    report = await erase(job_settings, made.outer, table="folders", catalog=CATALOG, dry_run=True)
    assert report.erased == {"folders": 2, "documents": 2, "revisions": 4}
    assert (await on_the_list(), await count(FOLDERS)) == (set(), 2)
    assert str(made.document) in await text_of_files(job_settings)


@pytest.mark.parametrize("destination", [*DESTINATIONS, None])
@pytest.mark.parametrize("child_first", [False, True])
async def test_a_child_that_is_named_beside_its_parent_is_counted_once(
    graph: DatabaseManager, child_first: bool, destination: str | None, job_settings: JobSettings
) -> None:
    made = await make_graph()
    if destination is not None:
        await archive(job_settings, catalog=CATALOG, destination=destination)
    named = (made.folder, made.outer) if child_first else (made.outer, made.folder)
    for dry_run in (True, False):
        report = await erase(job_settings, *named, table="folders", catalog=CATALOG, dry_run=dry_run)
        assert (report.erased, report.absent) == ({"folders": 2, "documents": 2, "revisions": 4}, ())
    assert report.listed == 8


async def test_a_run_that_is_interrupted_knows_who_is_erased(graph: DatabaseManager, job_settings: JobSettings) -> None:
    made, given = await make_graph(), await admitted("ada")
    request = EraseArchived(table="folders", ids=(str(made.outer), str(made.folder)), reason="asked for")
    with pytest.raises(RunInterrupted):
        await erase_archived(context_of(given, job_settings, should_stop=lambda: True), request, catalog=CATALOG)
    report = await erase_archived(context_of(given, job_settings), request, catalog=CATALOG)
    assert (report.erased, report.absent) == ({"folders": 2, "documents": 2, "revisions": 4}, ())


async def test_what_a_backup_brings_back_is_erased_again(graph: DatabaseManager, job_settings: JobSettings) -> None:
    made, other = await make_graph(), await make_graph()
    backup = {table: list((await rows_of(table)).values()) for table in (FOLDERS, DOCUMENTS, REVISIONS)}
    await archive(job_settings, catalog=CATALOG)
    await erase(job_settings, made.outer, table="folders", catalog=CATALOG)
    async with get_async_session(read_only=True) as session:
        kept_list = await read_list(session)
    assert len(kept_list) == 8
    await _bring_back(backup, living=True)

    async with get_async_session() as session:
        assert await merge_list(session, kept_list) == 8
        done = await erase_again(session, CATALOG)

    assert (done.erased, done.kept) == ({"folders": 2, "documents": 2, "revisions": 4}, ())
    assert set(await rows_of(FOLDERS)) == {other.outer, other.folder}
    assert await count(REVISIONS) == 4
    assert (await again(job_settings)).erased == {}


async def test_what_cannot_be_erased_again_is_named(graph: DatabaseManager, job_settings: JobSettings) -> None:
    made = await make_graph()
    backup = {table: list((await rows_of(table)).values()) for table in (FOLDERS, DOCUMENTS, REVISIONS)}
    await archive(job_settings, catalog=CATALOG)
    await erase(job_settings, made.document, table="documents", catalog=CATALOG)
    async with get_async_session() as session:
        for table in (DOCUMENTS_ARCHIVE, REVISIONS_ARCHIVE, FOLDERS_ARCHIVE):
            await session.execute(delete(table))
        await session.execute(
            insert(Erasure), [{"table_name": "gone", "row_key": "1", "reason": "-", "erased_at": datetime.now(UTC)}]
        )
    await _bring_back(backup, living=True, keep_list=True)
    async with get_async_session() as session:
        await session.execute(insert(CITATIONS).values(document_id=made.document))
        citation = (await session.scalars(select(CITATIONS.c.id))).one()
    report = await again(job_settings)
    assert report.erased == {"revisions": 2}
    assert [row.message for row in report.refused] == [
        "gone 1 is on the list but no model is mapped to its table",
        f"documents {made.document} {IN_THE_WAY.format(citation)}",
    ]


async def _bring_back(backup: dict[Table, list[dict[str, Any]]], *, living: bool, keep_list: bool = False) -> None:
    """Make the database what it was, as a restored backup does: with living rows, and an older list."""
    async with get_async_session() as session:
        for table in (DOCUMENTS_ARCHIVE, REVISIONS_ARCHIVE, FOLDERS_ARCHIVE):
            await session.execute(delete(table))
        if not keep_list:
            await session.execute(delete(Erasure))
        for table, rows in backup.items():
            alive = {"is_deleted": False, "deleted_at": None} if living and "is_deleted" in table.c else {}
            for row in sorted(rows, key=lambda row: row.get("parent_id") is not None):
                await session.execute(insert(table).values({**row, **alive}))


async def test_a_copy_of_a_file_does_not_bring_an_erased_child_back(
    graph: DatabaseManager, job_settings: JobSettings
) -> None:
    made = await make_graph()
    await archive(job_settings, catalog=CATALOG, tables=("documents",), destination="files")
    await archive(job_settings, catalog=CATALOG, tables=("folders",))
    async with get_async_session() as session:  # the list is newer than the files
        listed = {
            "table_name": "documents",
            "row_key": str(made.earlier),
            "reason": "-",
            "erased_at": datetime.now(UTC),
        }
        await session.execute(insert(Erasure), [listed])
    report = await restore(job_settings, made.outer, table="folders", catalog=CATALOG, all_children=True)
    assert report.restored == {"folders": 2, "documents": 1, "revisions": 2}
    assert set(await rows_of(DOCUMENTS)) == {made.document}
    assert await text_of_files(job_settings) == ""
    assert {("revisions", str(one)) for one in made.revisions[2:]} <= await on_the_list()


async def test_nothing_of_a_part_is_listed_that_is_empty(job_settings: JobSettings) -> None:
    ids = await make_tasks(2, deleted=range(2))
    await archive(job_settings, destination="files")
    await erase(job_settings, *ids)
    async with get_async_session(read_only=True) as session:
        assert list(await session.scalars(select(ArchivePart))) == []
    assert await count(TASKS_ARCHIVE) == 0


@pytest.mark.parametrize("action", [erase, restore])
async def test_files_are_looked_through_once_for_all_rows(
    action: Any, job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await make_tasks(20, deleted=range(20))
    await archive(job_settings, destination="files", batch_rows=8)
    looks = _watch_looks(monkeypatch)
    report = await action(job_settings, *ids[3:15])
    assert getattr(report, "erased" if action is erase else "restored") == {"tasks": 12}
    assert len(looks) == 1
    left = await text_of_files(job_settings)
    assert [one for one in ids if str(one) in left] == [*ids[:3], *ids[15:]]


@pytest.mark.parametrize("action", [erase, restore])
async def test_rows_that_go_to_files_while_these_are_read_are_found(
    action: Any, job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await make_tasks(4, deleted=range(4))

    async def archive_first() -> None:
        await archive(job_settings, destination="files")

    looks = _watch_looks(monkeypatch, archive_first)
    report = await action(job_settings, *ids[:2])
    assert getattr(report, "erased" if action is erase else "restored") == {"tasks": 2}
    assert (report.refused, len(looks)) == ((), 2)
    assert str(ids[0]) not in await text_of_files(job_settings)


def _watch_looks(monkeypatch: pytest.MonkeyPatch, behind: Any = None) -> list[FoundInFiles]:
    """Note each look into the files; the first one is followed by a deed of somebody else's."""
    looks: list[FoundInFiles] = []
    collect = FileSearch.collect

    async def watched(self: FileSearch, *args: Any) -> FoundInFiles:
        looks.append(await collect(self, *args))
        if behind is not None and len(looks) == 1:
            await behind()
        return looks[-1]

    monkeypatch.setattr(FileSearch, "collect", watched)
    return looks
