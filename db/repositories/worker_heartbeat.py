"""Who is alive, by the database's clock."""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import WorkerHeartbeat
from db.repositories.job_run import database_now
from db.types import utc_now


async def beat(session: AsyncSession, worker_id: str, *, host: str, pid: int, queue_home: str) -> None:
    """Say that a worker is alive."""
    changed = await session.execute(
        update(WorkerHeartbeat).where(WorkerHeartbeat.worker_id == worker_id).values(heartbeat_at=utc_now())
    )
    if changed.rowcount == 0:  # type: ignore[attr-defined]
        await session.execute(
            insert(WorkerHeartbeat).values(
                worker_id=worker_id,
                host=host,
                pid=pid,
                queue_home=queue_home,
                started_at=utc_now(),
                heartbeat_at=utc_now(),
            )
        )


async def live_workers(session: AsyncSession, *, timeout_s: float, queue_home: str | None = None) -> set[str]:
    """Return the ids of the workers that were heard of within ``timeout_s`` seconds, at one queue if given."""
    since = await database_now(session) - timedelta(seconds=timeout_s)
    query = select(WorkerHeartbeat.worker_id).where(WorkerHeartbeat.heartbeat_at >= since)
    if queue_home is not None:
        query = query.where(WorkerHeartbeat.queue_home == queue_home)
    return set((await session.execute(query)).scalars())


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
