"""Which runs are to be put into Redis, which run, and how many there are: what workers ask again and again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Text, TextClause, bindparam, cast, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db.repositories.arrays import among
from db.repositories.by_id import UPDATE_BY_ID
from db.repositories.history import first_id_of
from db.repositories.job_run import RunRow
from db.types import utc_now
from holdfast.outbox import LIVE, job_runs
from holdfast.states import RunState

FIRST_ID = UUID(int=0)
"""Below every run's."""

# These are in the statement's text: a prepared statement's parameters lead to no partial index, and SQLite takes one
# only where its own condition is repeated.
WAITING = (LIVE, job_runs.c.state == literal_column(f"'{RunState.WAITING.value}'"))
IS_RUNNING = (LIVE, job_runs.c.state == literal_column(f"'{RunState.RUNNING.value}'"))
NOT_DISPATCHED = job_runs.c.dispatched_at.is_(None)


def dispatchable(queue: Any, is_known_kind: ColumnElement[bool]) -> tuple[TextClause | ColumnElement[bool], ...]:
    """Return what is true of runs that belong into Redis, with the parameters ``due_before`` and ``after``.

    Args:
        queue: the queue's key, or a parameter for it.
        is_known_kind: whether the worker that asks knows the run's kind.
    """
    return (
        *WAITING,
        job_runs.c.queue == queue,
        is_known_kind,
        job_runs.c.due_at <= bindparam("due_before"),
        job_runs.c.id > bindparam("after"),
    )


DISPATCHABLE = dispatchable(bindparam("queue"), job_runs.c.kind.in_(bindparam("kinds", expanding=True)))
ENTRY = (
    *(job_runs.c[name] for name in ("id", "job_id", "kind", "queue", "enqueued_at", "due_at", "reason")),
    *(job_runs.c[name] for name in ("unique_key", "cancel_requested_at")),
    # As text: who puts it into Redis writes it anew.
    cast(job_runs.c.request, Text()).label("request"),
)
"""What is put into Redis of a run, and what decides whether it is."""
UNDISPATCHED = select(*ENTRY).where(*DISPATCHABLE, NOT_DISPATCHED).order_by(job_runs.c.id).limit(bindparam("most"))
"""With a watermark as ``after`` it reads the newest end of an index, however many runs there are below it: waiting,
dispatched, or finished and kept by an old snapshot."""
WAITING_IDS = (
    select(job_runs.c.id, job_runs.c.job_id, job_runs.c.reason)
    .where(*DISPATCHABLE)
    .order_by(job_runs.c.id)
    .limit(bindparam("most"))
)

RUNNING = select(job_runs).where(*IS_RUNNING, job_runs.c.queue == bindparam("queue"))


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

    def page(self, after: UUID, most: int) -> dict[str, Any]:
        """Return the parameters of ``UNDISPATCHED`` or ``WAITING_IDS`` for a page above an id."""
        return {
            "queue": self.queue,
            "kinds": self.kinds,
            "due_before": self.due_before,
            "after": after,
            "most": most,
        }


def watermark(now: datetime, look_back: timedelta) -> UUID:
    """Return the id below which nothing new is expected: a UUIDv7 begins with the time of its making."""
    return first_id_of(now - look_back)


async def undispatched_runs(
    reader: AsyncConnection, wanted: Dispatchable, *, after: UUID, most: int
) -> Sequence[RunRow]:
    """Return a page of runs that are not in Redis yet, in the order of their ids: the columns of ``ENTRY``."""
    return (await reader.execute(UNDISPATCHED, wanted.page(after, most))).all()


async def waiting_ids(
    reader: AsyncConnection, wanted: Dispatchable, *, after: UUID, most: int
) -> Sequence[Row[UUID, str, str | None]]:
    """Return a page of all waiting runs, in the order of their ids: ``id``, ``job_id`` and ``reason``."""
    return (await reader.execute(WAITING_IDS, wanted.page(after, most))).all()


async def waiting_runs(session: AsyncSession, kinds: Sequence[str], run_ids: Sequence[UUID]) -> Sequence[RunRow]:
    """Return those of these runs that wait and are of these kinds: the columns of ``ENTRY``."""
    query = select(*ENTRY).where(job_runs.c.id.in_(run_ids), *WAITING, job_runs.c.kind.in_(kinds))
    return (await session.execute(query.order_by(job_runs.c.id))).all()


async def entry_of(session: AsyncSession, queue: str, job_id: str) -> RunRow | None:
    """Return the run that was enqueued last under an id in Redis: ``ENTRY``, state, end, dispatch, and the time now."""
    instants = (job_runs.c.finished_at, job_runs.c.dispatched_at, utc_now().label("now"))
    columns: Sequence[Any] = (*ENTRY, job_runs.c.state, *instants)
    query = select(*columns).where(job_runs.c.job_id == job_id, job_runs.c.queue == queue)
    row: RunRow | None = (await session.execute(query.order_by(job_runs.c.enqueued_at.desc()).limit(1))).one_or_none()
    return row


async def running_runs(reader: AsyncConnection, queue: str) -> Sequence[RunRow]:
    """Return the queue's running rows, unlocked."""
    return (await reader.execute(RUNNING, {"queue": queue})).all()


async def count_due(session: AsyncSession, queue: str) -> Sequence[Row[str, str, int]]:
    """Return how many of a queue's runs are running or due: kind, state and number."""
    due = (job_runs.c.state == RunState.WAITING.value) & (job_runs.c.due_at <= utc_now())
    live = (job_runs.c.state == RunState.RUNNING.value) | due
    group = (job_runs.c.kind, job_runs.c.state)
    query = select(*group, func.count()).where(job_runs.c.queue == queue, live).group_by(*group)
    return (await session.execute(query)).all()


async def unmark_dispatched(session: AsyncSession, run_id: UUID) -> None:
    """Note that a waiting run is not in Redis any more."""
    undone = UPDATE_BY_ID.where(job_runs.c.id == run_id, job_runs.c.state == RunState.WAITING.value)
    await session.execute(undone.values(dispatched_at=None))


async def mark_dispatched(session: AsyncSession, run_ids: Sequence[UUID]) -> None:
    """Note that these waiting runs are in Redis now; one that another worker has put there is left as it is."""
    undone = (job_runs.c.state == RunState.WAITING.value, job_runs.c.dispatched_at.is_(None))
    marked = UPDATE_BY_ID.where(among(session, job_runs.c.id, run_ids), *undone)
    await session.execute(marked.values(dispatched_at=utc_now()))
