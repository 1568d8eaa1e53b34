"""Bringing rows back from archive tables and from files: whole, alive, once, or refused by name."""

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy import Table, delete, insert, select, update

from db.archive_tables import OWN_COLUMNS
from db.connection import DatabaseManager, get_async_session
from db.models import TASKS_ARCHIVE, ArchivePart, Task, User
from holdfast.requests import RestoreArchived
from jobs.outcomes import JobFailed, RunInterrupted
from jobs.restore_archived import restore_archived
from jobs.settings import JobSettings
from tests.archive.models import (
    CATALOG,
    DOCUMENTS,
    DOCUMENTS_ARCHIVE,
    FOLDERS,
    FOLDERS_ARCHIVE,
    REVISIONS,
    REVISIONS_ARCHIVE,
)
from tests.archive.returns import Graph, archive, make_graph, restore
from tests.archive.runs import context_of, count, make_tasks, rows_of
from tests.databases.runs import admitted

TASKS = cast("Table", Task.__table__)
DESTINATIONS = ("tables", "files")
ALIVE = {"is_deleted": False, "deleted_at": None}
CHANGED = (*ALIVE, "updated_at")
pytestmark = pytest.mark.usefixtures("manager")


def same(row: dict[str, Any]) -> dict[str, Any]:
    """What of a row must be as it was."""
    return {name: value for name, value in row.items() if name not in CHANGED}


async def lines_in_files() -> int:
    async with get_async_session(read_only=True) as session:
        return sum(await session.scalars(select(ArchivePart.rows)))


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_rows_come_back_alive_and_as_they_were(destination: str, job_settings: JobSettings) -> None:
    ids = await make_tasks(10, deleted=range(10))
    before = await rows_of(TASKS)
    await archive(job_settings, destination=destination)
    began = datetime.now(UTC)

    report = await restore(job_settings, ids[3], ids[7], ids[3])

    assert (report.restored, report.refused, report.stayed) == ({"tasks": 2}, (), {})
    after = await rows_of(TASKS)
    assert set(after) == {ids[3], ids[7]}
    for key, row in after.items():
        assert same(row) == same(before[key])
        assert {name: row[name] for name in ALIVE} == ALIVE
        assert row["updated_at"] >= began
    left = await lines_in_files() if destination == "files" else await count(TASKS_ARCHIVE)
    assert left == 8


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_a_record_can_go_and_come_back_again_and_again(destination: str, job_settings: JobSettings) -> None:
    ids = await make_tasks(3, deleted=range(3))
    for _ in range(2):
        await archive(job_settings, destination=destination)
        assert (await restore(job_settings, *ids)).restored == {"tasks": 3}
        async with get_async_session() as session:
            await session.execute(update(TASKS).values(is_deleted=True, deleted_at=datetime(2025, 1, 1, tzinfo=UTC)))
    assert await count(TASKS) == 3
    assert await lines_in_files() == await count(TASKS_ARCHIVE) == 0


async def test_the_files_that_remain_are_listed_and_whole(job_settings: JobSettings) -> None:
    ids = await make_tasks(30, deleted=range(30))
    report = await archive(job_settings, destination="files", batch_rows=10)
    folder = job_settings.archives_dir
    assert report.files == 3
    await restore(job_settings, *ids[5:20])
    async with get_async_session(read_only=True) as session:
        parts = list(await session.scalars(select(ArchivePart)))
    names = {path.name for path in folder.glob("*/*")} - {"manifest.json"}
    assert names == {part.file for part in parts}
    assert sum(part.rows for part in parts) == 15
    assert (await restore(job_settings, *ids[:5], *ids[20:])).restored == {"tasks": 15}
    assert {path.name for path in folder.glob("*/*")} == {"manifest.json"}


@pytest.fixture
async def made(graph: DatabaseManager) -> Graph:
    return await make_graph()


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_children_come_back_that_were_deleted_with_their_parent(
    made: Graph, destination: str, job_settings: JobSettings
) -> None:
    await archive(job_settings, catalog=CATALOG, destination=destination)
    assert await count(FOLDERS) == await count(DOCUMENTS) == await count(REVISIONS) == 0

    report = await restore(job_settings, made.outer, table="folders", catalog=CATALOG)

    assert report.restored == {"folders": 2, "documents": 1, "revisions": 2}
    assert report.stayed == {"documents": 1}
    assert set(await rows_of(FOLDERS)) == {made.outer, made.folder}
    assert set(await rows_of(DOCUMENTS)) == {made.document}
    assert set(await rows_of(REVISIONS)) == set(made.revisions[:2])
    if destination == "tables":
        assert set(await rows_of(DOCUMENTS_ARCHIVE)) == {made.earlier}
        assert set(await rows_of(REVISIONS_ARCHIVE)) == set(made.revisions[2:])
        assert await count(FOLDERS_ARCHIVE) == 0
    again = await restore(job_settings, made.earlier, table="documents", catalog=CATALOG)
    assert again.restored == {"documents": 1, "revisions": 2}


async def test_all_children_come_back_if_asked_for(made: Graph, job_settings: JobSettings) -> None:
    await archive(job_settings, catalog=CATALOG)
    report = await restore(job_settings, made.outer, table="folders", catalog=CATALOG, all_children=True)
    assert report.restored == {"folders": 2, "documents": 2, "revisions": 4}


@pytest.mark.parametrize(("parents", "children"), [("files", "tables"), ("tables", "files")])
async def test_a_record_is_found_in_tables_and_files_together(
    made: Graph, parents: str, children: str, job_settings: JobSettings
) -> None:
    await archive(job_settings, catalog=CATALOG, tables=("documents",), destination=children)
    await archive(job_settings, catalog=CATALOG, tables=("folders",), destination=parents)
    report = await restore(job_settings, made.outer, table="folders", catalog=CATALOG, all_children=True)
    assert report.restored == {"folders": 2, "documents": 2, "revisions": 4}
    assert await count(REVISIONS) == 4
    assert await lines_in_files() == await count(REVISIONS_ARCHIVE) == await count(FOLDERS_ARCHIVE) == 0


async def test_a_dry_run_says_what_would_come_back(made: Graph, job_settings: JobSettings) -> None:
    await archive(job_settings, catalog=CATALOG)
    report = await restore(job_settings, made.outer, made.document, table="folders", catalog=CATALOG, dry_run=True)
    assert (report.restored, report.stayed) == ({"folders": 2, "documents": 1, "revisions": 2}, {"documents": 1})
    assert [row.code for row in report.refused] == ["not_archived"]
    assert await count(FOLDERS) == 0


@pytest.mark.parametrize("destination", DESTINATIONS)
@pytest.mark.parametrize("child_first", [False, True])
async def test_a_child_that_is_named_beside_its_parent_comes_back_with_it(
    child_first: bool, destination: str, made: Graph, job_settings: JobSettings
) -> None:
    await archive(job_settings, catalog=CATALOG, destination=destination)
    named = (made.folder, made.outer) if child_first else (made.outer, made.folder)
    for dry_run in (True, False):
        report = await restore(job_settings, *named, table="folders", catalog=CATALOG, dry_run=dry_run)
        assert (report.restored, report.refused) == ({"folders": 2, "documents": 1, "revisions": 2}, ())
    assert set(await rows_of(FOLDERS)) == {made.outer, made.folder}


async def test_a_run_that_is_interrupted_knows_who_has_come_back(made: Graph, job_settings: JobSettings) -> None:
    await archive(job_settings, catalog=CATALOG)
    given, request = await admitted("ada"), RestoreArchived(table="folders", ids=(str(made.outer), str(made.folder)))
    with pytest.raises(RunInterrupted):
        await restore_archived(context_of(given, job_settings, should_stop=lambda: True), request, catalog=CATALOG)
    report = await restore_archived(context_of(given, job_settings), request, catalog=CATALOG)
    assert (report.restored, report.refused) == ({"folders": 2, "documents": 1, "revisions": 2}, ())


@pytest.mark.parametrize("destination", DESTINATIONS)
async def test_a_taken_value_is_a_conflict(destination: str, job_settings: JobSettings) -> None:
    ids = await make_tasks(3, deleted=range(3))
    before = await rows_of(TASKS)
    await archive(job_settings, destination=destination)
    (other,) = await make_tasks(1)
    async with get_async_session() as session:
        taken = {"external_key": before[ids[1]]["external_key"]}
        await session.execute(update(TASKS).where(TASKS.c.id == other).values(**taken))

    report = await restore(job_settings, *ids)

    assert report.restored == {"tasks": 2}
    (refused,) = report.refused
    assert (refused.key, refused.code) == (str(ids[1]), "unique")
    assert refused.message == (
        f"tasks {ids[1]}: its external_key {taken['external_key'][:80]!r} is taken by tasks {other}: "
        "change or delete that one first"
    )
    assert set(await rows_of(TASKS)) == {ids[0], ids[2], other}
    assert await lines_in_files() + await count(TASKS_ARCHIVE) == 1


async def test_a_missing_parent_is_a_conflict(job_settings: JobSettings) -> None:
    (task,) = await make_tasks(1, deleted=[0])
    await archive(job_settings)
    async with get_async_session() as session:
        user = (await session.scalars(select(User.id))).one()
        await session.execute(delete(User))
    report = await restore(job_settings, task)
    assert [row.message for row in report.refused] == [
        f"tasks {task}: its user_id refers to users {user}, which is not there; it is in no archive: make it first"
    ]
    assert (report.restored, await count(TASKS_ARCHIVE)) == ({}, 1)


async def test_a_parent_in_the_archive_is_named(made: Graph, job_settings: JobSettings) -> None:
    await archive(job_settings, catalog=CATALOG)
    report = await restore(job_settings, made.document, table="documents", catalog=CATALOG)
    (refused,) = report.refused
    assert refused.message == (
        f"documents {made.document}: its folder_id refers to folders {made.folder}, which is not there; "
        f"it is in an archive: restore folders {made.folder}"
    )
    assert await count(DOCUMENTS_ARCHIVE) == 2


async def test_what_is_in_its_table_or_in_no_archive_is_refused(job_settings: JobSettings) -> None:
    deleted, living = await make_tasks(2, deleted=[0])
    await archive(job_settings)
    async with get_async_session() as session:
        row = (await session.execute(select(TASKS_ARCHIVE))).mappings().one()
        values = {name: value for name, value in row.items() if name not in OWN_COLUMNS}
        await session.execute(insert(TASKS).values({**values, "external_key": None}))
    report = await restore(job_settings, deleted, living)
    assert [row.message for row in report.refused] == [
        f"tasks {deleted} is in its table already, soft-deleted: take its mark away there",
        f"tasks {living} is in no archive: look with: archives search tasks",
    ]


async def test_a_damaged_file_stops_the_run_before_anything_comes_back(job_settings: JobSettings) -> None:
    ids = await make_tasks(4, deleted=range(4))
    await archive(job_settings, destination="files")
    (path,) = job_settings.archives_dir.glob("*/*.zst")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(JobFailed, match=r"has the SHA-256 .* was written: bring it back.*; 0 of 1 rows were done"):
        await restore(job_settings, ids[0])
    assert await count(TASKS) == 0


async def test_drift_is_found_before_anything_comes_back(
    manager: DatabaseManager, job_settings: JobSettings, made: Graph
) -> None:
    await archive(job_settings, catalog=CATALOG)
    async with manager.engine.begin() as connection:
        await connection.exec_driver_sql("ALTER TABLE documents_archive ADD COLUMN more INTEGER")
        await connection.exec_driver_sql("ALTER TABLE documents ADD COLUMN more INTEGER")
    with pytest.raises(JobFailed, match=r"documents\.more is in the database but not in the model.*nothing was"):
        await restore(job_settings, made.outer, table="folders", catalog=CATALOG)
    assert await count(FOLDERS) == 0
