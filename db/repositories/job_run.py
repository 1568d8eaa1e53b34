"""How runs move through the ledger. Core statements: this is the hot path."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Row, Select, Text, bindparam, false, func, insert, select, true, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from db.models import NEXT_STATES, JobAttempt
from db.past_orm import in_drivers_words
from db.repositories.arrays import among
from db.repositories.by_id import UPDATE_BY_ID
from db.run_sessions import kept_name, name_columns, run_name
from db.types import utc_now
from holdfast.outbox import job_runs, job_runs_history, uuid7
from holdfast.states import RunState

RunRow = Row[Any]
"""A row of ``job_runs``, with its columns as attributes."""


@dataclass(slots=True)
class BornRun:
    """A run that was enqueued straight to Redis, as its payload tells it."""

    kind: str
    queue: str
    job_id: str
    enqueued_at: datetime
    request: dict[str, Any]
    unique_key: str | None = None
    due_at: datetime | None = None
    """When it is to start, where Redis told that, too."""

    @property
    def identity(self) -> tuple[str, str, datetime]:
        """What tells this run from all others."""
        return self.queue, self.job_id, self.enqueued_at

    def values(self, run_id: UUID) -> dict[str, Any]:
        """Return the run's first row."""
        return {
            "id": run_id,
            "kind": self.kind,
            "queue": self.queue,
            "job_id": self.job_id,
            "request": self.request,
            "unique_key": self.unique_key,
            "enqueued_at": self.enqueued_at,
            "due_at": self.due_at or self.enqueued_at,
        }


async def database_now(session: AsyncSession) -> datetime:
    """Return the database's clock."""
    return (await session.execute(select(utc_now()))).scalar_one()


async def get_run(
    session: AsyncSession, run_id: UUID, *, lock: bool = False, skip_locked: bool = False
) -> RunRow | None:
    """Return the run.

    Args:
        session: of the caller.
        run_id: the run's.
        lock: keep it locked until the transaction ends.
        skip_locked: with ``lock``: return None if somebody else has it locked, instead of waiting.
    """
    query = select(job_runs).where(job_runs.c.id == run_id)
    if lock:
        query = query.with_for_update(skip_locked=skip_locked)
    row: RunRow | None = (await session.execute(query)).one_or_none()
    return row


_MOVING = (
    "id",
    "state",
    "fence",
    "attempts",
    "crashes",
    "worker_id",
    "started_at",
    "cancel_requested_at",
    "cursor",
    "counters",
)


LocalSettings = tuple[tuple[str, str], ...]
"""Names and values of PostgreSQL's settings, for the rest of one transaction."""


async def lock_by_fence(
    session: AsyncSession, run_id: UUID, fence: int, *, share: int | None = None, settings: LocalSettings = ()
) -> RunRow | None:
    """Lock a run for the worker that was admitted to it at this fence, and return what that needs to know of it.

    The session is shown to others under the run's name from here on (``db.run_sessions``).

    Args:
        session: of a batch.
        run_id: the run's.
        fence: of this attempt.
        share: of which the session is to work, where several connections of this attempt do so side by side: they
            lock the run together, and only who wants to change its row waits.
        settings: PostgreSQL's for what comes behind the lock; other engines have none of them.
    """
    return await session.run_sync(_lock, (run_id, fence, share), settings)


def _lock(session: Session, attempt: tuple[UUID, int, int | None], settings: LocalSettings) -> RunRow | None:
    connection, name, (run_id, _, share) = session.connection(), run_name(*attempt), attempt
    query = _lock_by_fence(connection.dialect.name, share is not None, settings)
    lock = in_drivers_words(query, connection.dialect)
    with kept_name(connection, name):
        found = lock.run(connection, {"run_id": run_id, "session_name": name}).one_or_none()
    return cast("RunRow | None", found)


@lru_cache  # each batch of each run asks it
def _lock_by_fence(dialect: str, shared: bool, settings: LocalSettings) -> Select[Any]:
    columns = [job_runs.c[name] for name in _MOVING]
    query = select(*columns, *name_columns(dialect, bindparam("session_name", type_=Text())))
    query = query.where(job_runs.c.id == bindparam("run_id"))
    query = query.with_for_update(read=True) if shared else _locked(query)
    if dialect != "postgresql" or not settings:
        return query
    run = query.subquery("run")  # that is locked before anything is made of it: the lock is waited for without them
    set_now = [func.set_config(name, value, true()).label(f"set_{name}") for name, value in settings]
    return select(*run.c, *set_now)


def holds_fence(run: RunRow, fence: int) -> bool:
    """Whether the admission at this fence still stands."""
    return bool(run.fence == fence and run.state == RunState.RUNNING.value)


async def find_born_run(session: AsyncSession, born: BornRun) -> RunRow | None:
    """Return the locked row of a run by what Redis knows of it."""
    identity = (
        (job_runs.c.queue == born.queue)
        & (job_runs.c.job_id == born.job_id)
        & (job_runs.c.enqueued_at == born.enqueued_at)
    )
    row: RunRow | None = (await session.execute(_locked(select(job_runs).where(identity)))).one_or_none()
    return row


async def find_in_history(session: AsyncSession, born: BornRun) -> RunRow | None:
    """Return a finished run that has left the ledger, by what Redis knows of it."""
    history = job_runs_history.c
    identity = (history.queue == born.queue, history.job_id == born.job_id, history.enqueued_at == born.enqueued_at)
    row: RunRow | None = (await session.execute(select(job_runs_history).where(*identity))).first()
    return row


async def set_waiting(session: AsyncSession, run_id: UUID, reason: str) -> None:
    """Make a locked live run wait, for a reason."""
    await session.execute(
        update(job_runs).where(job_runs.c.id == run_id).values(state=RunState.WAITING.value, reason=reason)
    )


async def set_reason(session: AsyncSession, run_id: UUID, reason: str) -> None:
    """Say why a run waits."""
    await session.execute(
        UPDATE_BY_ID.where(job_runs.c.id == run_id, job_runs.c.state == RunState.WAITING.value).values(reason=reason)
    )


async def request_cancel(session: AsyncSession, run_ids: Sequence[UUID]) -> int:
    """Ask running runs to end as cancelled; returns how many heard it."""
    result = await session.execute(
        UPDATE_BY_ID.where(job_runs.c.id.in_(run_ids), job_runs.c.state == RunState.RUNNING.value).values(
            cancel_requested_at=utc_now()
        )
    )
    return int(result.rowcount)  # type: ignore[attr-defined]


async def cancel_requested(reader: AsyncConnection, run_ids: Collection[UUID]) -> Sequence[RunRow]:
    """Return those of these running runs that somebody wants to be cancelled."""
    query = select(job_runs).where(job_runs.c.id.in_(run_ids), job_runs.c.cancel_requested_at.is_not(None))
    return (await reader.execute(query)).all()


async def end_waiting(session: AsyncSession, run_id: UUID, state: RunState, **values: Any) -> None:
    """End a locked run that is not running."""
    await session.execute(
        UPDATE_BY_ID.where(job_runs.c.id == run_id, job_runs.c.state == RunState.WAITING.value).values(
            state=state.value, finished_at=utc_now(), live_key=None, **values
        )
    )


async def try_to_write(session: AsyncSession) -> None:
    """Change no row of the ledger, with the right to change each.

    Raises:
        sqlalchemy.exc.DBAPIError: this user of the database may not, or nobody may at present.
    """
    await session.execute(update(job_runs).values(reason=None).where(false()))


async def insert_born_run(session: AsyncSession, born: BornRun) -> UUID:
    """Enter a run into the ledger; its id is the queue's if that is a UUIDv7 that is still free."""
    run_id = as_uuid7(born.job_id)
    if run_id is None or await taken_ids(session, [run_id]):
        run_id = uuid7()
    waiting = {"state": RunState.WAITING.value, "dispatched_at": utc_now()}
    await session.execute(insert(job_runs).values(**born.values(run_id), **waiting))
    return run_id


async def taken_ids(session: AsyncSession, run_ids: Sequence[UUID]) -> set[UUID]:
    """Return those of these ids that a run has, in the history as well: a second one could never be moved there."""
    found = union_all(
        *(select(table.c.id).where(among(session, table.c.id, run_ids)) for table in (job_runs, job_runs_history))
    )
    return set((await session.execute(found)).scalars())


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
            # It may be admitted before the one who put it into Redis has noted that.
            dispatched_at=func.coalesce(job_runs.c.dispatched_at, utc_now()),
        )
    )
    return fence


async def count_crash(session: AsyncSession, run: RunRow) -> None:
    """Note that a locked run lost its worker."""
    await session.execute(update(job_runs).where(job_runs.c.id == run.id).values(crashes=run.crashes + 1))


async def leave_running(session: AsyncSession, run_id: UUID, fence: int, state: RunState, **values: Any) -> bool:
    """Move a running run on, if the fence still holds; returns whether it did."""
    result = await session.execute(
        UPDATE_BY_ID.where(
            job_runs.c.id == run_id, job_runs.c.fence == fence, job_runs.c.state == RunState.RUNNING.value
        ).values(state=_next_state(RunState.RUNNING, state), **values)
    )
    return bool(result.rowcount)  # type: ignore[attr-defined]


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


_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@lru_cache(maxsize=1024)  # a run's is asked for twice on its way in
def as_uuid7(text: str) -> UUID | None:
    """Return the UUID if the text is one of version 7 in its usual form."""
    return UUID(text) if _UUID7.fullmatch(text) else None


def _next_state(old: RunState, new: RunState) -> str:
    if new not in NEXT_STATES[old]:
        raise ValueError(f"a run that is {old} cannot become {new}: NEXT_STATES does not have that step")
    return new.value


def _locked(query: Select[Any]) -> Select[Any]:
    # On SQLite the transaction itself is the lock (BEGIN IMMEDIATE), and FOR UPDATE is not rendered.
    return query.with_for_update()
