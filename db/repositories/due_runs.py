"""Which runs are to be put into Redis, and how many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, TextClause, func, literal_column, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.repositories.history import first_id_of
from db.repositories.job_run import RunRow
from db.types import utc_now
from holdfast.outbox import LIVE, job_runs
from holdfast.states import RunState

# Both are in the statement's text: a prepared statement's parameters lead to no partial index, and SQLite takes one
# only where its own condition is repeated.
WAITING = (LIVE, job_runs.c.state == literal_column(f"'{RunState.WAITING.value}'"))


@dataclass(frozen=True, slots=True)
class Dispatchable:
    """Which waiting runs a worker may put into Redis.

    Args:
        queue: the queue's key.
        kinds: those that this worker knows.
        due_before: later ones stay in the ledger for now.
    """

    queue: str
    kinds: Sequence[str]
    due_before: datetime

    def conditions(self) -> tuple[ColumnElement[bool] | TextClause, ...]:
        """Return it as conditions on the ledger's table."""
        columns = job_runs.c
        ours = (columns.queue == self.queue, columns.kind.in_(self.kinds), columns.due_at <= self.due_before)
        return (*WAITING, *ours)


def watermark(now: datetime, look_back: timedelta) -> UUID:
    """Return the id below which nothing new is expected: a UUIDv7 begins with the time of its making."""
    return first_id_of(now - look_back)


def undispatched(wanted: Dispatchable, *, after: UUID | None, limit: int) -> Select[Any]:
    """Return the query for a page of runs that are not in Redis yet, in the order of their ids.

    With a watermark as ``after`` it reads the newest end of the index of live runs, however many there are below it:
    waiting, dispatched, or finished and kept by an old snapshot.
    """
    query = select(job_runs).where(*wanted.conditions(), job_runs.c.dispatched_at.is_(None))
    if after is not None:
        query = query.where(job_runs.c.id > after)
    return query.order_by(job_runs.c.id).limit(limit)


async def undispatched_runs(
    session: AsyncSession, wanted: Dispatchable, *, after: UUID | None, limit: int
) -> Sequence[RunRow]:
    """Return a page of runs that are not in Redis yet, in the order of their ids."""
    runs: Sequence[RunRow] = (await session.execute(undispatched(wanted, after=after, limit=limit))).all()
    return runs


async def waiting_ids(
    session: AsyncSession, wanted: Dispatchable, *, after: UUID | None, limit: int
) -> Sequence[Row[UUID, str, str | None]]:
    """Return a page of all waiting runs, in the order of their ids: ``id``, ``job_id`` and ``reason``."""
    query = select(job_runs.c.id, job_runs.c.job_id, job_runs.c.reason).where(*wanted.conditions())
    if after is not None:
        query = query.where(job_runs.c.id > after)
    return (await session.execute(query.order_by(job_runs.c.id).limit(limit))).all()


async def waiting_runs(session: AsyncSession, kinds: Sequence[str], run_ids: Sequence[UUID]) -> Sequence[RunRow]:
    """Return those of these runs that wait and are of these kinds."""
    query = select(job_runs).where(job_runs.c.id.in_(run_ids), *WAITING, job_runs.c.kind.in_(kinds))
    return (await session.execute(query.order_by(job_runs.c.id))).all()


async def count_due(session: AsyncSession, queue: str) -> int:
    """Return how many of a queue's runs are running or due."""
    due = (job_runs.c.state == RunState.WAITING.value) & (job_runs.c.due_at <= utc_now())
    live = (job_runs.c.state == RunState.RUNNING.value) | due
    query = select(func.count()).select_from(job_runs).where(job_runs.c.queue == queue, live)
    total: int = (await session.execute(query)).scalar_one()
    return total


async def mark_dispatched(session: AsyncSession, run_ids: Sequence[UUID]) -> None:
    """Note that these waiting runs are in Redis now; one that another worker has put there is left as it is."""
    undone = (job_runs.c.state == RunState.WAITING.value, job_runs.c.dispatched_at.is_(None))
    await session.execute(update(job_runs).where(job_runs.c.id.in_(run_ids), *undone).values(dispatched_at=utc_now()))
