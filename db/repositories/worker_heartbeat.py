"""Who is alive, by the database's clock, and in which state."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import Table, bindparam, case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db.models import WorkerHeartbeat, WorkerState
from db.past_orm import execute_past_orm
from db.repositories.job_run import database_now
from db.types import utc_now
from holdfast.outbox import job_runs
from holdfast.states import RunState


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """What stays the same of a worker while it lives."""

    worker_id: str
    host: str
    pid: int
    queue_home: str
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeenWorker:
    """A worker as the ledger sees it."""

    heartbeat: WorkerHeartbeat
    is_alive: bool
    """Whether it was heard of lately."""
    running: int
    """The runs that the ledger believes it to perform."""
    silent_s: float
    """Seconds since its last sign of life."""

    @property
    def since(self) -> datetime:
        """When it came into its state."""
        return self.heartbeat.state_since or self.heartbeat.started_at

    def serves(self, queue_home: str, queue: str) -> bool:
        """Whether it is alive and one of its queues is this one, as far as it has said."""
        row = self.heartbeat
        return self.is_alive and row.queue_home == queue_home and (row.queues is None or queue in row.queues)


_row = WorkerHeartbeat.__table__.c
_BEAT = (
    update(cast("Table", WorkerHeartbeat.__table__))
    .where(_row.worker_id == bindparam("this_worker"))
    # In this order: MySQL and MariaDB compare with what they have set just before.
    .ordered_values(
        (_row.state_since, case((_row.state == bindparam("now_in"), _row.state_since), else_=utc_now())),
        (_row.state, bindparam("now_in")),
        (_row.heartbeat_at, utc_now()),
    )
)


async def beat(connection: AsyncConnection | AsyncSession, worker: WorkerIdentity, state: WorkerState) -> None:
    """Say that a worker is alive, and what it does."""
    values = {"this_worker": worker.worker_id, "now_in": state.value}
    changed = await execute_past_orm(connection, _BEAT, values)
    if changed.rowcount == 0:
        await connection.execute(
            insert(WorkerHeartbeat).values(
                worker_id=worker.worker_id,
                host=worker.host,
                pid=worker.pid,
                queue_home=worker.queue_home,
                queues=list(worker.queues),
                state=state.value,
                state_since=utc_now(),
                started_at=utc_now(),
                heartbeat_at=utc_now(),
            )
        )


async def live_workers(session: AsyncSession, *, timeout_s: float) -> set[str]:
    """Return the ids of the workers that were heard of within ``timeout_s`` seconds."""
    since = await database_now(session) - timedelta(seconds=timeout_s)
    query = select(WorkerHeartbeat.worker_id).where(WorkerHeartbeat.heartbeat_at >= since)
    return set((await session.execute(query)).scalars())


async def list_workers(session: AsyncSession, *, timeout_s: float) -> list[SeenWorker]:
    """Return all workers that did not say goodbye, the youngest first; those silent for ``timeout_s`` are dead."""
    now = await database_now(session)
    is_running = job_runs.c.state == RunState.RUNNING.value
    counts = select(job_runs.c.worker_id, func.count().label("runs")).where(is_running).group_by(job_runs.c.worker_id)
    running: dict[str, int] = {row.worker_id: row.runs for row in await session.execute(counts)}
    found = await session.execute(select(WorkerHeartbeat).order_by(WorkerHeartbeat.started_at.desc()))
    workers = []
    for row in found.scalars():
        silent_s = (now - row.heartbeat_at).total_seconds()
        workers.append(SeenWorker(row, silent_s <= timeout_s, running.get(row.worker_id, 0), max(0.0, silent_s)))
    return workers


async def workers_at(session: AsyncSession, queue_home: str) -> set[str]:
    """Return the ids of all workers that ever said to work at a queue and did not say goodbye."""
    query = select(WorkerHeartbeat.worker_id).where(WorkerHeartbeat.queue_home == queue_home)
    return set((await session.execute(query)).scalars())


async def forget(session: AsyncSession, worker_ids: Collection[str]) -> None:
    """Take the rows of ended or dead workers away."""
    await session.execute(delete(WorkerHeartbeat).where(WorkerHeartbeat.worker_id.in_(worker_ids)))


async def forget_silent(session: AsyncSession, *, silent_s: float) -> None:
    """Take away the rows of all workers that were not heard of for ``silent_s`` seconds."""
    since = await database_now(session) - timedelta(seconds=silent_s)
    await session.execute(delete(WorkerHeartbeat).where(WorkerHeartbeat.heartbeat_at < since))
