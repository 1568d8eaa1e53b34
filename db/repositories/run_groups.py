"""How many runs at once move through the ledger: the statements behind ``worker.grouped_ledger``.

What is out of the ordinary is left out, and goes the way of one run: a row that somebody has locked, a suspect, a
unique key, a cancellation. ``run_groups_postgresql`` does the same in one statement each.
"""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Table, bindparam, func, insert, literal, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db.connection import get_async_session, get_single, statements_stand_alone
from db.in_time import in_time
from db.models import JobAttempt
from db.repositories import run_groups_postgresql
from db.repositories.arrays import among
from db.repositories.job_run import BornRun
from db.run_sessions import name_session
from db.types import utc_now
from holdfast.outbox import job_runs
from holdfast.states import RunState

GroupSession = AsyncSession | AsyncConnection
"""What a group is moved with: on PostgreSQL a connection, on which each statement is a transaction of its own."""
Identity = tuple[str, str, datetime]
_DECIDING = ("id", "queue", "job_id", "enqueued_at", "fence", "attempts")
_TABLE: Any = JobAttempt.__table__


@asynccontextmanager
async def group_session(name: str | None = None) -> AsyncIterator[GroupSession]:
    """Open what the statements on one group are executed with.

    On PostgreSQL each of them is a transaction of its own, so that a frozen worker holds no locks; elsewhere it is one
    transaction, which is shown to others under ``name`` (``db.run_sessions``) where there is one. It has to end in
    time (``db.in_time``).
    """
    if statements_stand_alone():
        async with in_time(), get_single() as connection:
            yield connection
        return
    async with in_time(), get_async_session() as session:
        if name is not None:
            await name_session(session, name)
        yield session


async def warm_up(connections: int) -> None:
    """Open connections and have the statements on groups prepared, so that the first runs do not wait for that.

    Args:
        connections: how many; fewer than the pool has. Nothing is done where groups are moved in transactions.
    """
    if not statements_stand_alone():
        return
    async with in_time(), AsyncExitStack() as stack:
        for _ in range(connections):
            connection = await stack.enter_async_context(get_single())
            await run_groups_postgresql.admit(connection, [], {}, "", suspect_after=0)
            await run_groups_postgresql.end_succeeded(connection, [])


async def find_known(
    session: AsyncSession, borns: Sequence[BornRun], table: Table = job_runs
) -> Mapping[Identity, Row[Any]]:
    """Return id and identity of every row of these job ids, by its identity, unlocked; of ledger or history."""
    rows = (await session.execute(_of_borns(session, borns, table))).all()
    return {(run.queue, run.job_id, run.enqueued_at): run for run in rows}


async def admit(
    borns: Sequence[BornRun],
    new_ids: Mapping[int, UUID],
    worker_id: str,
    *,
    suspect_after: int,
    name: str,
) -> Mapping[int, tuple[UUID, int, int]]:
    """Admit a worker to those of these runs that wait in the ledger, are ordinary and locked by nobody, or are new.

    Args:
        borns: the runs as Redis tells them.
        new_ids: of those that may be entered, by their place in ``borns``: the id that each gets.
        worker_id: the worker.
        suspect_after: how many crashes make a run out of the ordinary.
        name: as ``group_session``.

    Returns:
        Id, new fence and charged attempts, by the place in ``borns``.
    """
    async with group_session(name) as session:
        if isinstance(session, AsyncConnection):
            return await run_groups_postgresql.admit(session, borns, new_ids, worker_id, suspect_after=suspect_after)
        admitted = await _admit_waiting(session, borns, worker_id, suspect_after=suspect_after)
    fresh = {run_id: at for at, run_id in new_ids.items() if at not in admitted}
    if fresh:
        with suppress(SQLAlchemyError, OSError):  # what was admitted stays so
            async with group_session(name) as session:
                entered = await enter(session, {run_id: borns[at] for run_id, at in fresh.items()}, worker_id)
            admitted.update({fresh[run_id]: (run_id, 1, 0) for run_id in entered})
    return admitted


async def _admit_waiting(
    session: AsyncSession, borns: Sequence[BornRun], worker_id: str, *, suspect_after: int
) -> dict[int, tuple[UUID, int, int]]:
    ordinary = _of_borns(session, borns, job_runs).where(
        job_runs.c.state == RunState.WAITING.value,
        job_runs.c.unique_key.is_(None),
        job_runs.c.cancel_requested_at.is_(None),
        job_runs.c.crashes < suspect_after,
    )
    locked = (await session.execute(ordinary.order_by(job_runs.c.id).with_for_update(skip_locked=True))).all()
    places = {born.identity: at for at, born in enumerate(borns)}
    rows = [run for run in locked if (run.queue, run.job_id, run.enqueued_at) in places]
    if rows:
        await _set_running(session, [run.id for run in rows], worker_id)
    return {places[run.queue, run.job_id, run.enqueued_at]: (run.id, run.fence + 1, run.attempts) for run in rows}


async def enter(session: GroupSession, borns: Mapping[UUID, BornRun], worker_id: str | None) -> Collection[UUID]:
    """Enter those of these runs that the ledger does not have.

    Args:
        session: of ``group_session``.
        borns: the runs as Redis tells them, by the id that each gets.
        worker_id: the worker that is admitted to them at once; None: they wait.

    Returns:
        The ids of those that it did not have.

    Raises:
        sqlalchemy.exc.IntegrityError: another worker has entered one at this moment, or an id is taken; not on
            PostgreSQL, which leaves that one out.
    """
    if isinstance(session, AsyncConnection):
        return await run_groups_postgresql.enter(session, borns, worker_id)
    known = await find_known(session, list(borns.values()))
    rows = {run_id: born for run_id, born in borns.items() if born.identity not in known}
    if rows:
        start: dict[str, Any] = {"state": RunState.WAITING.value, "dispatched_at": utc_now()}
        if worker_id is not None:
            start |= {"state": RunState.RUNNING.value, "fence": 1, "worker_id": worker_id, "started_at": utc_now()}
        statement = insert(job_runs).values(start)
        await session.execute(statement, [born.values(run_id) for run_id, born in rows.items()])
    return rows.keys()


async def end_succeeded(session: GroupSession, ends: Sequence[tuple[UUID, int, dict[str, Any] | None]]) -> set[int]:
    """End those of these runs whose fence holds and that nobody else has locked, with their reports and attempts.

    Args:
        session: of ``group_session``.
        ends: id, fence and report of each.

    Returns:
        The places in ``ends`` of those that ended.
    """
    if isinstance(session, AsyncConnection):
        return await run_groups_postgresql.end_succeeded(session, ends)
    query = select(job_runs.c.id, job_runs.c.fence).where(
        job_runs.c.id.in_([run_id for run_id, _, _ in ends]), job_runs.c.state == RunState.RUNNING.value
    )
    locked = (await session.execute(query.order_by(job_runs.c.id).with_for_update(skip_locked=True))).all()
    held = {(run.id, run.fence) for run in locked}
    reports = {run_id: report for run_id, fence, report in ends if (run_id, fence) in held}
    if reports:
        await _set_succeeded(session, reports)
        await _add_attempts(session, reports, "succeeded")
    return {at for at, (run_id, fence, _) in enumerate(ends) if (run_id, fence) in held}


async def _set_running(session: AsyncSession, run_ids: Collection[UUID], worker_id: str) -> None:
    await session.execute(
        update(job_runs)
        .where(job_runs.c.id.in_(run_ids))
        .values(
            state=RunState.RUNNING.value,
            reason=None,
            error=None,
            fence=job_runs.c.fence + 1,
            worker_id=worker_id,
            started_at=utc_now(),
            dispatched_at=func.coalesce(job_runs.c.dispatched_at, utc_now()),
        )
    )


async def _set_succeeded(session: AsyncSession, reports: Mapping[UUID, dict[str, Any] | None]) -> None:
    statement = (
        update(job_runs)
        .where(job_runs.c.id == bindparam("run_id"))
        .values(
            state=RunState.SUCCEEDED.value,
            finished_at=utc_now(),
            live_key=None,
            report=bindparam("new_report", type_=job_runs.c.report.type),
        )
    )
    await session.execute(statement, [{"run_id": run_id, "new_report": report} for run_id, report in reports.items()])


async def _add_attempts(session: AsyncSession, run_ids: Collection[UUID], outcome: str) -> None:
    run = job_runs.c
    values = {
        "run_id": run.id,
        "fence": run.fence,
        "attempt": run.attempts + 1,
        "worker_id": run.worker_id,
        "started_at": run.started_at,
        "finished_at": utc_now(),
        "outcome": literal(outcome),
    }
    rows = select(*values.values()).where(run.id.in_(run_ids))
    await session.execute(insert(_TABLE).from_select(list(values), rows))


def _of_borns(session: AsyncSession, borns: Sequence[BornRun], table: Table) -> Select[Any]:
    queues, job_ids = {born.queue for born in borns}, {born.job_id for born in borns}
    wanted = among(session, table.c.job_id, job_ids)
    return select(*(table.c[name] for name in _DECIDING)).where(table.c.queue.in_(queues), wanted)
