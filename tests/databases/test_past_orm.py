"""Statements past the ORM and most of Core: the same answers, the same errors, and nobody who listens misses one."""

import asyncio
import logging
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import bindparam, column, insert, literal, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from db.connection import DatabaseManager, get_async_session
from db.models import JobRun
from db.past_orm import execute_past_orm, in_drivers_words
from db.settings import DatabaseSettings
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from tests.databases.engines import ON_SERVERS
from tests.databases.sessions import end, own_id, running
from tests.databases.statements import statements
from tests.databases.test_cancelled_statements import LONG, PATIENCE_S
from tests.servers import wait_until

AT = datetime(2026, 11, 30, 12, 30, 15, 123456, tzinfo=UTC)
REQUEST = {"rows": [1, "it's ü", None], "deep": {"x": 1.5}}
ROW = {"kind": "k", "queue": "q", "job_id": "j", "enqueued_at": AT, "due_at": AT, "state": "waiting"}
OF_ID = job_runs.c.id == bindparam("run_id")
FIND = select(
    job_runs.c.id, job_runs.c.due_at, job_runs.c.request, job_runs.c.worker_id, literal("100 %").label("word")
).where(OF_ID)
CHANGE = update(job_runs).where(OF_ID).values(counters=bindparam("counted"), crashes=3)
ENTER = insert(job_runs).values(ROW | {"id": bindparam("run_id"), "request": REQUEST})
COUNT = text("SELECT count(*) FROM job_runs")


async def new_run() -> UUID:
    run_id = uuid7()
    async with get_async_session() as session:
        await execute_past_orm(session, ENTER, {"run_id": run_id})
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
            await execute_past_orm(session, ENTER, {"run_id": run_id})
    assert "INSERT INTO job_runs" in str(caught.value)
    assert not caught.value.connection_invalidated
    async with get_async_session() as session:
        assert (await session.execute(COUNT)).scalar_one() == 1
    assert manager.pool_figures().checked_out == 0


async def test_a_missing_value_and_a_list_are_refused(manager: DatabaseManager) -> None:
    with pytest.raises((KeyError, StatementError), match="run_id"):
        async with get_async_session() as session:
            await execute_past_orm(session, FIND, {})
    with pytest.raises(ValueError, match="a list of values"):
        in_drivers_words(select(column("x")).where(column("x").in_([1, 2])), manager.engine.dialect)


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


@ON_SERVERS
async def test_only_the_first_statement_goes_to_another_connection(
    manager: DatabaseManager, request: pytest.FixtureRequest
) -> None:
    name = manager.engine.dialect.name
    server = request.getfixturevalue("postgres_server" if name == "postgresql" else "mariadb_server")
    run_id = await new_run()
    async with get_async_session() as session:
        broken = await own_id(session)
    end(server, broken)
    async with get_async_session() as session:
        found = (await execute_past_orm(session, FIND, {"run_id": run_id})).one()
        assert (found[0], found[2]) == (run_id, REQUEST)
        again = await own_id(session)
        assert again != broken
        end(server, again)
        with pytest.raises(DBAPIError) as caught:
            await execute_past_orm(session, CHANGE, {"run_id": run_id, "counted": {"rows": 1}})
        assert caught.value.connection_invalidated
        await session.rollback()
    async with get_async_session() as session:
        assert (await session.get_one(JobRun, run_id)).counters is None
