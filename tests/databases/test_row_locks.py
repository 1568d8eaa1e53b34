"""A change of one run looks at that run alone, whatever the optimizer of MySQL and MariaDB takes to be quicker."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from db.connection import DatabaseManager, get_async_session
from db.repositories import due_runs, job_run
from holdfast.states import RunState
from tests.databases.engines import ON_MARIADB
from tests.databases.runs import admitted

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
