"""Which runs are to be put into Redis, and how many there are."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.repositories.job_run import RunRow
from db.types import utc_now
from holdfast.outbox import job_runs
from holdfast.states import RunState


@dataclass(frozen=True, slots=True)
class Dispatchable:
    """Which waiting runs a worker may put into Redis."""

    queue: str
    kinds: Sequence[str]
    due_before: datetime
    only_undispatched: bool


async def waiting_runs(
    session: AsyncSession, wanted: Dispatchable, *, after: UUID | None, limit: int
) -> Sequence[RunRow]:
    """Return a page of waiting runs in the order of their ids, to be put into Redis."""
    query = select(job_runs).where(
        job_runs.c.state == RunState.WAITING.value,
        job_runs.c.queue == wanted.queue,
        job_runs.c.kind.in_(wanted.kinds),
        job_runs.c.due_at <= wanted.due_before,
    )
    if wanted.only_undispatched:
        query = query.where(job_runs.c.dispatched_at.is_(None))
    if after is not None:
        query = query.where(job_runs.c.id > after)
    return (await session.execute(query.order_by(job_runs.c.id).limit(limit))).all()


async def count_due(session: AsyncSession, queue: str) -> int:
    """Return how many of a queue's runs are running or due."""
    due = (job_runs.c.state == RunState.WAITING.value) & (job_runs.c.due_at <= utc_now())
    live = (job_runs.c.state == RunState.RUNNING.value) | due
    query = select(func.count()).select_from(job_runs).where(job_runs.c.queue == queue, live)
    total: int = (await session.execute(query)).scalar_one()
    return total


async def mark_dispatched(session: AsyncSession, run_ids: Sequence[UUID]) -> None:
    """Note that these waiting runs are in Redis now."""
    await session.execute(
        update(job_runs)
        .where(job_runs.c.id.in_(run_ids), job_runs.c.state == RunState.WAITING.value)
        .values(dispatched_at=utc_now())
    )
