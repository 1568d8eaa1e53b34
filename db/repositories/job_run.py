"""The ledger's statements on ``job_runs`` and ``job_attempts``. Core statements: this is the hot path."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import NEXT_STATES, JobAttempt, JobRun
from db.types import utc_now
from holdfast.outbox import job_runs, uuid7
from holdfast.states import RunState

RunRow = Row[Any]
"""A row of ``job_runs``, with its columns as attributes."""


@dataclass(frozen=True, slots=True)
class BornRun:
    """A run that was enqueued straight to Redis, as its payload tells it."""

    kind: str
    queue: str
    job_id: str
    enqueued_at: datetime
    request: dict[str, Any]


async def database_now(session: AsyncSession) -> datetime:
    """Return the database's clock."""
    return (await session.execute(select(utc_now()))).scalar_one()


async def get_run(session: AsyncSession, run_id: UUID, *, lock: bool = False) -> RunRow | None:
    """Return the run, locked until the transaction ends if asked for."""
    query = _locked(select(job_runs).where(job_runs.c.id == run_id), lock=lock)
    row: RunRow | None = (await session.execute(query)).one_or_none()
    return row


async def find_born_run(session: AsyncSession, born: BornRun) -> RunRow | None:
    """Return the locked row of a run by what Redis knows of it."""
    identity = (
        (job_runs.c.queue == born.queue)
        & (job_runs.c.job_id == born.job_id)
        & (job_runs.c.enqueued_at == born.enqueued_at)
    )
    row: RunRow | None = (await session.execute(_locked(select(job_runs).where(identity)))).one_or_none()
    return row


async def insert_born_run(session: AsyncSession, born: BornRun) -> UUID:
    """Enter a run into the ledger; its id is the queue's if that is a UUIDv7 that is still free."""
    run_id = as_uuid7(born.job_id)
    if run_id is None or await get_run(session, run_id) is not None:
        run_id = uuid7()
    await session.execute(
        insert(job_runs).values(
            id=run_id,
            kind=born.kind,
            queue=born.queue,
            job_id=born.job_id,
            request=born.request,
            state=RunState.WAITING.value,
            enqueued_at=born.enqueued_at,
            due_at=born.enqueued_at,
            dispatched_at=utc_now(),
        )
    )
    return run_id


async def set_running(session: AsyncSession, run: RunRow, worker_id: str) -> int:
    """Admit a worker to a locked run; returns the new fence."""
    fence: int = run.fence + 1
    await session.execute(
        update(job_runs)
        .where(job_runs.c.id == run.id)
        .values(
            state=_next_state(RunState(run.state), RunState.RUNNING),
            reason=None,
            fence=fence,
            worker_id=worker_id,
            started_at=utc_now(),
            error=None,
        )
    )
    return fence


async def count_crash(session: AsyncSession, run: RunRow) -> None:
    """Note that a locked run lost its worker."""
    await session.execute(update(job_runs).where(job_runs.c.id == run.id).values(crashes=run.crashes + 1))


async def leave_running(session: AsyncSession, run_id: UUID, fence: int, state: RunState, **values: Any) -> bool:
    """Move a running run on, if the fence still holds; returns whether it did."""
    result = await session.execute(
        update(job_runs)
        .where(job_runs.c.id == run_id, job_runs.c.fence == fence, job_runs.c.state == RunState.RUNNING.value)
        .values(state=_next_state(RunState.RUNNING, state), **values)
    )
    return bool(result.rowcount)  # type: ignore[attr-defined]


async def fail_waiting(session: AsyncSession, run_id: UUID, error: dict[str, Any]) -> None:
    """End a run that cannot be started at all."""
    await session.execute(
        update(job_runs)
        .where(job_runs.c.id == run_id, job_runs.c.state == RunState.WAITING.value)
        .values(state=_next_state(RunState.WAITING, RunState.FAILED), finished_at=utc_now(), error=error)
    )


async def add_attempt(session: AsyncSession, run: RunRow, outcome: str, error: dict[str, Any] | None = None) -> None:
    """Write down how the running attempt of ``run`` ended."""
    await session.execute(
        insert(JobAttempt).values(
            run_id=run.id,
            fence=run.fence,
            attempt=run.attempts + 1,
            worker_id=run.worker_id,
            started_at=run.started_at,
            finished_at=utc_now(),
            outcome=outcome,
            error=error,
        )
    )


async def running_runs(session: AsyncSession, queue: str) -> Sequence[RunRow]:
    """Return the queue's running rows, unlocked."""
    query = select(job_runs).where(job_runs.c.state == RunState.RUNNING.value, job_runs.c.queue == queue)
    return (await session.execute(query)).all()


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


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None is no condition."""

    state: str | None = None
    kind: str | None = None
    queue: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def apply(self, query: Select[Any]) -> Select[Any]:
        """Return the query with these conditions."""
        columns = {"state": self.state, "kind": self.kind, "queue": self.queue}
        for name, value in columns.items():
            if value is not None:
                query = query.where(job_runs.c[name] == value)
        if self.since is not None:
            query = query.where(job_runs.c.enqueued_at >= self.since)
        if self.until is not None:
            query = query.where(job_runs.c.enqueued_at < self.until)
        return query


async def list_runs(
    session: AsyncSession, run_filter: RunFilter, *, before: UUID | None = None, limit: int = 50
) -> Sequence[RunRow]:
    """Return runs, the newest first, from below the id ``before``."""
    query = run_filter.apply(select(job_runs))
    if before is not None:
        query = query.where(job_runs.c.id < before)
    rows: Sequence[RunRow] = (await session.execute(query.order_by(job_runs.c.id.desc()).limit(limit))).all()
    return rows


async def count_runs(session: AsyncSession, run_filter: RunFilter) -> int:
    """Return how many runs the filter finds."""
    total: int = (await session.execute(run_filter.apply(select(func.count()).select_from(job_runs)))).scalar_one()
    return total


async def list_attempts(session: AsyncSession, run_id: UUID) -> Sequence[JobAttempt]:
    """Return the ended attempts of a run, the first one first."""
    query = select(JobAttempt).where(JobAttempt.run_id == run_id).order_by(JobAttempt.fence)
    return (await session.execute(query)).scalars().all()


async def live_sources(session: AsyncSession, kind: str) -> set[str]:
    """Return the ``source`` of every run of a kind that has not succeeded, to know which spooled files are needed."""
    query = select(JobRun.request).where(JobRun.kind == kind, JobRun.state.notin_(["succeeded", "cancelled"]))
    return {str(request.get("source")) for request in (await session.execute(query)).scalars()}


def as_uuid7(text: str) -> UUID | None:
    """Return the UUID if the text is one of version 7 in its usual form."""
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if value.version == 7 and str(value) == text else None


def _next_state(old: RunState, new: RunState) -> str:
    if new not in NEXT_STATES[old]:
        raise ValueError(f"a run that is {old} cannot become {new}: NEXT_STATES does not have that step")
    return new.value


def _locked(query: Select[Any], *, lock: bool = True) -> Select[Any]:
    # On SQLite the transaction itself is the lock (BEGIN IMMEDIATE), and FOR UPDATE is not rendered.
    return query.with_for_update() if lock else query
