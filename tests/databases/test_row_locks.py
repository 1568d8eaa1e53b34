"""A change of some runs looks at those alone, whatever the optimizer of MySQL and MariaDB takes to be quicker."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect

from db.connection import DatabaseManager, get_async_session
from db.repositories import due_runs, job_run
from db.repositories.by_id import UPDATE_BY_ID
from holdfast.outbox import job_runs
from holdfast.states import RunState
from tests.databases.engines import ON_MARIADB, ON_POSTGRESQL, ON_SERVERS
from tests.databases.runs import admitted, move_everything
from tests.faults.troubles import until_somebody_waits
from worker import ledger
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")

Updates = list[tuple[str, Any]]


@contextmanager
def updates_of_runs(manager: DatabaseManager) -> Iterator[Updates]:
    """Note each UPDATE of the ledger that is executed in the block, with its values."""
    found: Updates = []

    def note(connection: object, cursor: object, statement: str, values: Any, *_: object) -> None:
        del connection, cursor
        if statement.startswith("UPDATE job_runs"):
            found.append((statement, values))

    event.listen(manager.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        event.remove(manager.engine.sync_engine, "before_cursor_execute", note)


async def indexes_considered(manager: DatabaseManager, statement: str, values: Any) -> str:
    async with manager.engine.connect() as connection:
        plan = await connection.exec_driver_sql("EXPLAIN " + statement, values)
        return str(plan.mappings().one()["possible_keys"])


@ON_MARIADB
async def test_a_change_by_id_finds_its_run_by_nothing_else(manager: DatabaseManager) -> None:
    run = await admitted("worker")
    with updates_of_runs(manager) as updates:
        async with get_async_session() as session:
            await job_run.request_cancel(session, [run.run_id])
            await job_run.leave_running(session, run.run_id, run.fence, RunState.WAITING, dispatched_at=None)
            await due_runs.mark_dispatched(session, [run.run_id])
            await job_run.set_reason(session, run.run_id, "unknown_kind")
            await job_run.end_waiting(session, run.run_id, RunState.CANCELLED)
    assert len(updates) == 5
    for statement, values in updates:
        assert await indexes_considered(manager, statement, values) == "PRIMARY", statement


@ON_SERVERS
async def test_the_history_does_not_wait_for_a_run_that_somebody_works_on(manager: DatabaseManager) -> None:
    for _ in range(10):
        await ledger.finish(await admitted("worker"), Outcome("succeeded"))
    running = await admitted("worker")
    async with manager.session() as somebody:
        assert await job_run.lock_by_fence(somebody, running.run_id, running.fence) is not None
        async with asyncio.timeout(5):
            assert await move_everything() == 10


@ON_POSTGRESQL
async def test_settings_of_a_batch_hold_from_behind_the_lock_to_its_end(manager: DatabaseManager) -> None:
    running = await admitted("worker")
    shown = text("SHOW lock_timeout")

    async def follow() -> list[str]:
        async with manager.session() as session:
            impatient = (("lock_timeout", "20ms"),)
            run = await job_run.lock_by_fence(session, running.run_id, running.fence, settings=impatient)
            assert run is not None
            assert run.id == running.run_id
            within = str(await session.scalar(shown))
            await session.rollback()
            return [within, str(await session.scalar(shown))]

    async with manager.session() as somebody:
        assert await job_run.lock_by_fence(somebody, running.run_id, running.fence) is not None
        waiting = asyncio.create_task(follow())
        await until_somebody_waits(manager)
        await asyncio.sleep(0.1)
    assert await waiting == ["20ms", "0"]


@pytest.mark.parametrize("dialect", [MySQLDialect(), MariaDBDialect()], ids=["mysql", "mariadb"])
def test_the_hint_is_written_for_both(dialect: MySQLDialect) -> None:
    statement = UPDATE_BY_ID.where(job_runs.c.state == "running").values(reason=None)
    assert str(statement.compile(dialect=dialect)).startswith("UPDATE job_runs FORCE INDEX (PRIMARY) SET ")
