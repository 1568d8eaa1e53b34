"""Statements past the ORM and most of Core: the same answers, the same errors, and nobody who listens misses one."""

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy import (
    ClauseElement,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    bindparam,
    column,
    insert,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from db import past_orm
from db.connection import DatabaseManager, get_async_session
from db.errors import is_unstorable
from db.models import JobRun
from db.past_orm import execute_past_orm, in_drivers_words
from db.settings import DatabaseSettings
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from tests.databases.engines import ON_MARIADB, ON_POSTGRESQL, ON_SERVERS
from tests.databases.sessions import end, own_id, own_id_by_driver, running
from tests.databases.statements import statements
from tests.databases.test_cancelled_statements import LONG, PATIENCE_S
from tests.servers import MariaDBServer, PostgresServer, wait_until

AT = datetime(2026, 11, 30, 12, 30, 15, 123456, tzinfo=UTC)
REQUEST = {"rows": [1, "it's ü", None], "deep": {"x": 1.5}}
ROW = {"kind": "k", "queue": "q", "enqueued_at": AT, "due_at": AT, "state": "waiting"}
OF_ID = job_runs.c.id == bindparam("run_id")
FIND = select(
    job_runs.c.id, job_runs.c.due_at, job_runs.c.request, job_runs.c.worker_id, literal("100 %").label("word")
).where(OF_ID)
CHANGE = update(job_runs).where(OF_ID).values(counters=bindparam("counted"), crashes=3)
ENTER = insert(job_runs).values(
    ROW | {"id": bindparam("run_id"), "job_id": bindparam("name", type_=String()), "request": REQUEST}
)
COUNT = text("SELECT count(*) FROM job_runs")


def of(run_id: UUID) -> dict[str, object]:
    return {"run_id": run_id, "name": str(run_id)}


async def new_run() -> UUID:
    run_id = uuid7()
    async with get_async_session() as session:
        await execute_past_orm(session, ENTER, of(run_id))
    return run_id


async def test_rows_come_as_core_gives_them(manager: DatabaseManager) -> None:
    del manager
    run_id = await new_run()
    async with get_async_session() as session:
        found = (await execute_past_orm(session, FIND, {"run_id": run_id, "unknown": object()})).one()
        as_by_core = (await session.execute(FIND, {"run_id": run_id})).one()
        nobody = await execute_past_orm(session, FIND, {"run_id": uuid7()})
    assert found == tuple(as_by_core) == (run_id, AT, REQUEST, None, "100 %")
    assert (found.id, found.due_at, found.request, found.word) == (run_id, AT, REQUEST, "100 %")
    assert nobody.one_or_none() is None
    with pytest.raises(ValueError, match="not enough values"):
        nobody.one()


async def test_changes_are_the_transactions(manager: DatabaseManager) -> None:
    del manager
    run_id = await new_run()
    async with get_async_session() as session:
        changed = await execute_past_orm(session, CHANGE, {"run_id": run_id, "counted": {"rows": 7}})
        assert (changed.rowcount, list(changed.rows)) == (1, [])
        assert (await execute_past_orm(session, CHANGE, {"run_id": uuid7(), "counted": {}})).rowcount == 0
        await session.rollback()
        await execute_past_orm(session, CHANGE, {"run_id": run_id, "counted": {"rows": 8}})
    async with get_async_session() as session:
        run = await session.get_one(JobRun, run_id)
        assert (run.counters, run.crashes) == ({"rows": 8}, 3)


async def test_a_refused_statement_raises_what_core_raises(manager: DatabaseManager) -> None:
    run_id = await new_run()
    with pytest.raises(IntegrityError) as caught:
        async with get_async_session() as session:
            await execute_past_orm(session, ENTER, of(run_id))
    assert "INSERT INTO job_runs" in str(caught.value)
    assert not caught.value.connection_invalidated
    async with get_async_session() as session:
        assert (await session.execute(COUNT)).scalar_one() == 1
    assert manager.pool_figures().checked_out == 0


@pytest.mark.parametrize("values", [{}, {"run_id": uuid7(), "counted": {"rows": object()}}])
async def test_a_value_that_is_missing_or_fits_no_column_is_refused_as_by_core(
    manager: DatabaseManager, values: dict[str, object]
) -> None:
    del manager
    with pytest.raises(StatementError) as caught:
        async with get_async_session() as session:
            await execute_past_orm(session, CHANGE, values)
    assert not isinstance(caught.value, DBAPIError)
    assert "UPDATE job_runs" in str(caught.value)
    assert is_unstorable(caught.value)


@pytest.mark.parametrize(
    "statement",
    [
        select(column("x")).where(column("x").in_([1, 2])),
        select(column("x")).where(column("x") == bindparam("y", callable_=lambda: 7)),
        insert(Table("t", MetaData(), Column("x", Integer), Column("y", Integer, default=lambda: 7))).values(x=1),
        update(Table("t", MetaData(), Column("x", Integer), Column("y", Integer, onupdate=lambda: 7))).values(x=1),
    ],
    ids=["list", "callable", "default", "onupdate"],
)
async def test_what_is_computed_for_each_execution_is_refused(
    manager: DatabaseManager, statement: ClauseElement
) -> None:
    with pytest.raises(ValueError, match="a list of values, or one that is computed"):
        in_drivers_words(statement, manager.engine.dialect)


async def test_another_value_may_be_given_in_the_place_of_a_constant(manager: DatabaseManager) -> None:
    del manager
    number = select(bindparam("number", 5, type_=Integer()).label("number"))
    async with get_async_session() as session:
        assert (await execute_past_orm(session, number, {})).one().number == 5
        assert (await execute_past_orm(session, number, {"number": 6})).one().number == 6


async def test_an_error_that_is_none_of_the_databases_is_raised_as_it_is(
    manager: DatabaseManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reset(*_: object) -> None:
        raise ConnectionResetError("by peer")

    run_id = await new_run()
    with monkeypatch.context() as broken:
        broken.setattr(manager.engine.dialect, "do_execute", reset)
        async with get_async_session() as session:
            with pytest.raises(ConnectionResetError, match="by peer"):
                await execute_past_orm(session, FIND, {"run_id": run_id})
    async with get_async_session() as session:
        assert (await execute_past_orm(session, FIND, {"run_id": run_id})).one().id == run_id


async def test_core_executes_it_only_for_who_listens(
    manager: DatabaseManager, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    by_core = past_orm._run_in_core

    def note(connection: Connection, sql: str, values: tuple[Any, ...]) -> past_orm.DriverResult:
        seen.append(sql)
        return by_core(connection, sql, values)

    monkeypatch.setattr(past_orm, "_run_in_core", note)
    run_id = await new_run()
    async with get_async_session() as session:
        await execute_past_orm(session, FIND, {"run_id": run_id})
        await execute_past_orm(session, CHANGE, {"run_id": run_id, "counted": {}})
    assert seen == []
    with caplog.at_level(logging.INFO, "sqlalchemy.engine.Engine"):
        async with get_async_session() as session:
            await execute_past_orm(session, FIND, {"run_id": run_id})
    assert len(seen) == 1
    assert seen[0] in [record.getMessage() for record in caplog.records]
    assert manager.pool_figures().checked_out == 0


@ON_POSTGRESQL
async def test_a_column_that_has_changed_fails_once_and_not_for_good(manager: DatabaseManager) -> None:
    """asyncpg keeps statements prepared, and a connection would refuse one for as long as it lives."""
    word = select(Table("past_words", MetaData(), Column("word", String())).c.word)
    async with get_async_session() as session:
        await session.execute(text("CREATE TABLE past_words AS SELECT CAST('ada' AS varchar(10)) AS word"))
    try:
        async with get_async_session() as session:
            assert (await execute_past_orm(session, word, {})).one().word == "ada"
        server = await asyncpg.connect(manager.engine.url.set(drivername="postgresql").render_as_string(False))
        await server.execute("ALTER TABLE past_words ALTER word TYPE varchar(20)")  # by somebody else
        await server.close()
        with pytest.raises(DBAPIError, match="cached statement plan is invalid"):
            async with get_async_session() as session:
                await execute_past_orm(session, word, {})
        async with get_async_session() as session:
            assert (await execute_past_orm(session, word, {})).one().word == "ada"
    finally:
        async with get_async_session() as session:
            await session.execute(text("DROP TABLE past_words"))


async def test_who_listens_hears_of_it(manager: DatabaseManager) -> None:
    run_id = await new_run()
    with statements(manager) as sent:
        async with get_async_session() as session:
            found = (await execute_past_orm(session, FIND, {"run_id": run_id})).one()
            changed = await execute_past_orm(session, CHANGE, {"run_id": run_id, "counted": {}})
    assert [one.split()[0] for one in sent] == ["SELECT", "UPDATE"]
    assert (found.request, changed.rowcount) == (REQUEST, 1)


async def test_a_slow_one_is_logged(settings: DatabaseSettings, caplog: pytest.LogCaptureFixture) -> None:
    slow = DatabaseManager(settings.model_copy(update={"database_slow_query_s": 1e-9}))
    async with slow.session() as session:
        await execute_past_orm(session, FIND, {"run_id": uuid7()})
    await slow.close()
    lines = [record for record in caplog.records if record.name == "holdfast.database"]
    assert [record.levelno for record in lines if "FROM job_runs" in record.getMessage()] == [logging.WARNING]


@ON_SERVERS
async def test_a_cancelled_one_ends_at_the_database(manager: DatabaseManager, request: pytest.FixtureRequest) -> None:
    name = manager.engine.dialect.name
    server = request.getfixturevalue("postgres_server" if name == "postgresql" else "mariadb_server")
    long = text(LONG[name])

    async def wait_for_long() -> None:
        async with get_async_session() as session:
            await execute_past_orm(session, long, {})

    task = asyncio.create_task(wait_for_long())
    assert await asyncio.to_thread(wait_until, lambda: running(server, "cancelled-here") > 0, PATIENCE_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(wait_until, lambda: not running(server, "cancelled-here"), PATIENCE_S)
    async with get_async_session() as session:
        assert await execute_past_orm(session, COUNT, {}) == ([(0,)], 1)


@pytest.fixture
async def server(manager: DatabaseManager, request: pytest.FixtureRequest) -> PostgresServer | MariaDBServer:
    name = "postgres_server" if manager.engine.dialect.name == "postgresql" else "mariadb_server"
    found = request.getfixturevalue(name)
    assert isinstance(found, PostgresServer | MariaDBServer)
    return found


async def first_of_a_lost_connection(manager: DatabaseManager, server: PostgresServer | MariaDBServer) -> None:
    run_id = await new_run()
    async with manager.session() as session:
        broken = await own_id(session)
    end(server, broken)
    async with manager.session() as session:
        found = (await execute_past_orm(session, FIND, {"run_id": run_id})).one()
        assert (found[0], found[2]) == (run_id, REQUEST)
        assert await own_id(session) != broken


@ON_SERVERS
async def test_the_first_statement_goes_to_another_connection(
    manager: DatabaseManager, server: PostgresServer | MariaDBServer
) -> None:
    await first_of_a_lost_connection(manager, server)


@ON_MARIADB
async def test_it_does_so_with_the_other_driver(
    manager: DatabaseManager, server: PostgresServer | MariaDBServer, settings: DatabaseSettings
) -> None:
    del manager
    url = settings.url.set(drivername="mysql+aiomysql").render_as_string(hide_password=False)
    other = DatabaseManager(DatabaseSettings(database_url=url, _env_file=None))
    assert other.engine.dialect.driver == "aiomysql"
    await first_of_a_lost_connection(other, server)
    await other.close()


@ON_SERVERS
@pytest.mark.parametrize("first_fails", [False, True])
async def test_a_later_one_does_not(
    manager: DatabaseManager, server: PostgresServer | MariaDBServer, first_fails: bool
) -> None:
    run_id, other = await new_run(), uuid7()
    with pytest.raises(DBAPIError) as caught:  # noqa: PT012 - it must not commit either
        async with manager.session() as session:
            with suppress(IntegrityError):
                await execute_past_orm(session, ENTER, of(run_id if first_fails else other))
            end(server, await own_id_by_driver(session))
            await execute_past_orm(session, CHANGE, {"run_id": run_id, "counted": {"rows": 1}})
    assert caught.value.connection_invalidated
    async with manager.session() as session:
        assert (await session.get_one(JobRun, run_id)).counters is None
        assert await session.get(JobRun, other) is None
