"""Setting the clocks of a Redis and a database that run by the machine's: what they have noted is moved instead."""

from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import WorkerHeartbeat
from holdfast import wire
from holdfast.outbox import job_runs
from holdfast.states import RunState
from worker.queue.scripts import QueueKeys

TICK_S = 100.0
"""So long that the real time of a step does not count."""

MOVE_LUA = """
for at = 1, 2 do
  local found = redis.call('ZRANGE', KEYS[at], 0, -1, 'WITHSCORES')
  for i = 1, #found, 2 do redis.call('ZADD', KEYS[at], tonumber(found[i + 1]) - ARGV[1], found[i]) end
end
local kept = redis.call('HGETALL', KEYS[3])
for i = 1, #kept, 2 do redis.call('HSET', KEYS[3], kept[i], string.format('%.0f', tonumber(kept[i + 1]) - ARGV[1])) end
"""
"""KEYS: queue, leases, scores. ARGV: ms."""


async def move_redis_clock(redis: Any, ticks: int) -> None:
    """Lets Redis's clock be so much later."""
    queue, leases, scores, _ = QueueKeys(wire.DEFAULT_QUEUE).all()
    await redis.eval(MOVE_LUA, 3, queue, leases, scores, int(ticks * TICK_S * 1000))


async def move_database_clock(session: AsyncSession, ticks: int) -> None:
    """Lets the database's clock be so much later; set back, it only makes the silent look alive for longer."""
    by = timedelta(seconds=ticks * TICK_S)
    beats = WorkerHeartbeat.__table__.c
    for worker_id, at in (await session.execute(select(beats.worker_id, beats.heartbeat_at))).all():
        await session.execute(
            update(WorkerHeartbeat).where(WorkerHeartbeat.worker_id == worker_id).values(heartbeat_at=at - by)
        )
    if ticks < 0:
        return
    running = select(job_runs.c.id, job_runs.c.started_at).where(job_runs.c.state == RunState.RUNNING.value)
    for run_id, at in (await session.execute(running)).all():
        await session.execute(update(job_runs).where(job_runs.c.id == run_id).values(started_at=at - by))
    waiting = select(job_runs.c.id, job_runs.c.due_at).where(job_runs.c.state == RunState.WAITING.value)
    for run_id, at in (await session.execute(waiting)).all():
        await session.execute(update(job_runs).where(job_runs.c.id == run_id).values(due_at=at - by))
