"""Others change the rows while they are archived; runs are interrupted, overtaken and gone on with."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from sqlalchemy import Table, event, func, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from db.connection import DatabaseManager, get_async_session
from db.errors import is_transient
from db.models import TASKS_ARCHIVE, Task
from holdfast.requests import ArchiveDeleted, EraseArchived, RestoreArchived
from jobs.archive_deleted import archive_deleted
from jobs.archive_deleted.steps import impatient
from jobs.erase_archived import erase_archived
from jobs.outcomes import FenceLost, JobFailed, RunInterrupted
from jobs.restore_archived import restore_archived
from jobs.settings import JobSettings
from jobs.throttle import Throttle
from tests.archive.hostile import HOSTILE_NAMES
from tests.archive.models import CATALOG, DOCUMENTS, FOLDERS
from tests.archive.runs import archive, context_of, count, make_tasks, rows_of
from tests.archive.test_graph import document, folder
from tests.databases.engines import ON_MARIADB, ON_POSTGRESQL, ON_SERVERS
from tests.databases.runs import admitted
from tests.databases.sessions import end, own_id
from tests.faults.troubles import until_somebody_waits
from tests.servers import MariaDBServer

TASKS = cast("Table", Task.__table__)

MEDDLING = {
    "sqlite": [
        """CREATE TRIGGER meddle AFTER INSERT ON tasks_archive BEGIN
        UPDATE tasks_archive SET title = 'other' WHERE id = NEW.id; END"""
    ],
    "postgresql": [
        """CREATE FUNCTION meddle() RETURNS trigger AS
        'BEGIN NEW.title = ''other''; RETURN NEW; END' LANGUAGE plpgsql""",
        "CREATE TRIGGER meddle BEFORE INSERT ON tasks_archive FOR EACH ROW EXECUTE FUNCTION meddle()",
    ],
    "mysql": ["CREATE TRIGGER meddle BEFORE INSERT ON tasks_archive FOR EACH ROW SET NEW.title = 'other'"],
}


@ON_SERVERS  # SQLite has one writer
@pytest.mark.parametrize("destination", ["tables", "files", "purge"])
@pytest.mark.parametrize("deleted", [range(300), range(5, 3000, 500)], ids=["dense", "sparse"])
async def test_rows_that_others_have_locked_are_left_and_counted(
    deleted: range, destination: str, manager: DatabaseManager, job_settings: JobSettings
) -> None:
    ids = await make_tasks(len(range(deleted.stop)), deleted=deleted)
    mine = [ids[number] for number in deleted][1:3]
    async with manager.session() as session:
        await session.execute(update(Task).where(Task.id.in_(mine)).values(title="mine"))
        report = await archive(job_settings, destination=destination)
    assert report.moved == {"tasks": len(deleted) - 2}
    assert report.left == {"tasks": 2}
    assert set(mine) <= set(await rows_of(TASKS))
    assert (await archive(job_settings)).moved == {"tasks": 2}
    assert [(await rows_of(TASKS_ARCHIVE))[key]["title"] for key in mine] == ["mine", "mine"]


@ON_SERVERS
async def test_two_runs_share_a_table(manager: DatabaseManager, job_settings: JobSettings) -> None:
    """What one of them has read and the other one has archived since is nobody's conflict."""
    del manager
    ids = await make_tasks(3000, deleted=range(3000))
    first, second = await asyncio.gather(archive(job_settings), archive(job_settings))
    assert first.moved["tasks"] + second.moved.get("tasks", 0) == 3000
    assert set(await rows_of(TASKS_ARCHIVE)) == set(ids)


@pytest.fixture
async def either_case(manager: DatabaseManager) -> AsyncIterator[None]:
    """Titles of tasks that are equal whatever their case; as they were after the test."""
    title = "ALTER TABLE tasks ALTER title TYPE varchar(255) COLLATE"
    of_either = "provider = icu, locale = 'und-u-ks-level2', deterministic = false"
    async with manager.engine.begin() as connection:
        await connection.execute(text(f"CREATE COLLATION either_case ({of_either})"))
        await connection.execute(text(f"{title} either_case"))
    yield
    async with manager.engine.begin() as connection:
        await connection.execute(text(f'{title} "default"'))
        await connection.execute(text("DROP COLLATION either_case"))


@ON_POSTGRESQL
@pytest.mark.usefixtures("either_case")
async def test_a_change_that_a_collation_calls_equal_is_archived(
    manager: DatabaseManager, job_settings: JobSettings
) -> None:
    ids = await make_tasks(300, deleted=range(300))
    async with manager.session() as session:
        await session.execute(update(Task).where(Task.id == ids[7]).values(title=func.upper(Task.title)))
        running = asyncio.create_task(archive(job_settings))
        await until_somebody_waits(manager)
    assert (await running).moved == {"tasks": 300}
    assert (await rows_of(TASKS_ARCHIVE))[ids[7]]["title"].startswith("TASK 7")


async def test_rows_that_others_change_meanwhile_are_archived_as_they_are_then(
    manager: DatabaseManager, job_settings: JobSettings
) -> None:
    ids = await make_tasks(3000, deleted=range(3000))
    restored, renamed = set(ids[::10]), set(ids[5::10])
    done = asyncio.Event()

    async def change() -> set[Any]:
        """Change rows in the reverse order, so that the archive comes towards us."""
        reached = set()
        for key in reversed(ids):
            if key not in restored | renamed:
                continue
            values: dict[str, Any] = {"title": "renamed"}
            if key in restored:
                values = {"is_deleted": False, "deleted_at": None}
            async with manager.session() as session:
                result: Any = await session.execute(
                    update(Task).where(Task.id == key).values(**values).execution_options(include_deleted=True)
                )
            if result.rowcount:
                reached.add(key)
            if done.is_set():
                break
        return reached

    changing = asyncio.create_task(change())
    await asyncio.sleep(0.05)
    report = await archive(job_settings, batch_target_ms=2.0)
    done.set()
    reached = await changing
    left, archived = await rows_of(TASKS), await rows_of(TASKS_ARCHIVE)
    assert left.keys() | archived.keys() == set(ids)
    assert not left.keys() & archived.keys()
    assert report.moved == {"tasks": len(archived)}
    assert reached
    for key in reached:
        if key in restored:
            assert key in left
            assert not left[key]["is_deleted"]
        else:
            assert {**left, **archived}[key]["title"] == "renamed"
    assert (await archive(job_settings)).moved == {"tasks": sum(row["is_deleted"] for row in left.values())}


async def test_a_stopped_run_goes_on_where_it_stood(manager: DatabaseManager, job_settings: JobSettings) -> None:
    del manager
    ids = await make_tasks(1000, deleted=range(1000))
    given = await admitted("ada")
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    request = ArchiveDeleted(batch_rows=100)
    with pytest.raises(RunInterrupted):
        await archive_deleted(context_of(given, job_settings, should_stop=should_stop), request)
    assert await count(TASKS_ARCHIVE) == 200
    # Its limit is the first attempt's: what was deleted since then waits for the next run.
    async with get_async_session() as session:
        await session.execute(
            update(Task)
            .where(Task.id == ids[999])
            .values(deleted_at=datetime.now(UTC))
            .execution_options(include_deleted=True)
        )
    report = await archive_deleted(context_of(given, job_settings), request)
    assert (report.moved, report.due) == ({"tasks": 999}, {"tasks": 1000})
    assert await count(TASKS_ARCHIVE) == 999


async def test_its_pauses_are_summed_over_all_attempts(
    manager: DatabaseManager, job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    del manager
    await make_tasks(300, deleted=range(300))
    given, request, rests = await admitted("ada"), ArchiveDeleted(batch_rows=100), list[float]()

    async def rest(self: Throttle, worked_s: float) -> None:
        rests.append(worked_s)
        self.paused_s += 1000.0 if len(rests) <= 2 else 1.0

    monkeypatch.setattr(Throttle, "rest", rest)
    with pytest.raises(RunInterrupted):
        await archive_deleted(context_of(given, job_settings, should_stop=lambda: len(rests) == 2), request)
    report = await archive_deleted(context_of(given, job_settings), request)
    assert report.moved == {"tasks": 300}
    assert report.paused_s >= 1000.0


async def test_an_overtaken_worker_moves_nothing_more(manager: DatabaseManager, job_settings: JobSettings) -> None:
    del manager
    await make_tasks(500, deleted=range(500))
    first = await admitted("dead")
    second = await admitted("bob", run_id=first.run_id)
    with pytest.raises(FenceLost):
        await archive_deleted(context_of(first, job_settings), ArchiveDeleted())
    assert await count(TASKS) == 500
    report = await archive_deleted(context_of(second, job_settings), ArchiveDeleted())
    assert report.moved == {"tasks": 500}


async def test_what_is_archived_must_be_what_was_there(manager: DatabaseManager, job_settings: JobSettings) -> None:
    """A trigger that changes what is archived: no row is deleted for it."""
    await make_tasks(40, deleted=range(40))
    dialect = manager.engine.dialect.name
    statements = MEDDLING.get(dialect, MEDDLING["mysql"])
    undo = ["DROP TRIGGER meddle"]
    if dialect == "postgresql":
        undo = ["DROP TRIGGER meddle ON tasks_archive", "DROP FUNCTION meddle"]
    async with manager.engine.begin() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)
    try:
        with pytest.raises(JobFailed, match=r"40 rows were archived .*: nothing was changed") as caught:
            await archive(job_settings)
    finally:
        async with manager.engine.begin() as connection:
            for statement in undo:
                await connection.exec_driver_sql(statement)
    assert caught.value.code == "proof_failed"
    assert (await count(TASKS), await count(TASKS_ARCHIVE)) == (40, 0)


@ON_SERVERS
async def test_a_child_that_is_locked_holds_its_parent_and_nobody_else(
    graph: DatabaseManager, job_settings: JobSettings
) -> None:
    places = [await folder() for _ in range(6)]
    papers = [await document(place) for place in places]
    async with graph.session() as session:
        await session.execute(select(DOCUMENTS).where(DOCUMENTS.c.id == papers[3]).with_for_update())
        report = await archive(job_settings, catalog=CATALOG, tables=("folders",), batch_rows=6)
    assert (report.moved, report.left) == ({"folders": 5, "documents": 5}, {"folders": 1})
    assert set(await rows_of(FOLDERS)) == {places[3]}


@pytest.mark.usefixtures("manager")
async def test_hostile_table_names_reach_no_sql(job_settings: JobSettings, manager: DatabaseManager) -> None:
    statements: list[str] = []
    event.listen(manager.engine.sync_engine, "before_cursor_execute", lambda *seen: statements.append(seen[2]))
    given = await admitted("ada")
    statements.clear()
    for name in HOSTILE_NAMES:
        request = ArchiveDeleted.model_construct(tables=(name,))
        with pytest.raises(JobFailed, match="no table of a mapped model") as caught:
            await archive_deleted(context_of(given, job_settings), request)
        assert caught.value.code == "unknown_table"
        context = context_of(given, job_settings)
        named: dict[str, Any] = {"table": name, "ids": ("1",)}
        with pytest.raises(JobFailed, match="no table of a mapped model"):
            await restore_archived(context, RestoreArchived.model_construct(**named))
        with pytest.raises(JobFailed, match="no table of a mapped model"):
            await erase_archived(context, EraseArchived.model_construct(**named, reason="x"))
    assert statements == []


@ON_MARIADB
async def test_a_connection_that_is_lost_behind_the_last_row_is_told_as_lost(
    manager: DatabaseManager, mariadb_server: MariaDBServer
) -> None:
    """The attempt is repeated then. Whatever the session says afterwards is no reason to repeat it."""

    async def lose_it() -> None:
        async with manager.session() as session:
            async with impatient(session):
                end(mariadb_server, await own_id(session))
            await session.execute(text("SELECT 1"))

    with pytest.raises(SQLAlchemyError) as lost:
        await lose_it()
    assert is_transient(lost.value)
