"""From the ledger into Redis: runs that were enqueued in the database, put back, or forgotten by Redis."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from db.connection import get_async_session
from db.repositories import job_run
from db.repositories.job_run import Dispatchable, RunRow
from holdfast import wire

PAGE_RUNS = 500
HORIZON = timedelta(minutes=2)
"""Only runs due so soon go to Redis; the others wait in the ledger."""

PUT_LUA = """
if ARGV[4] == '1' then redis.call('DEL', KEYS[3], KEYS[4]) end
redis.call('SET', KEYS[1], ARGV[1])
if ARGV[4] == '1' or not redis.call('ZSCORE', KEYS[2], ARGV[3]) then
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
end
"""
"""KEYS: job, queue, in-progress, retry. ARGV: payload, due (Unix ms), job id, 1 to take a dead worker's claim away."""


async def dispatch(redis: Any, queue: str, kinds: Sequence[str]) -> int:
    """Put the waiting runs of these kinds that are not in Redis yet there; others wait for a worker that knows them.

    Returns:
        How many were put. A crash before they are marked puts them there once more, which changes nothing.
    """
    count = 0
    while True:
        async with get_async_session(read_only=True) as session:
            now = await job_run.database_now(session)
            wanted = Dispatchable(queue, kinds, now + HORIZON, only_undispatched=True)
            runs = await job_run.waiting_runs(session, wanted, after=None, limit=PAGE_RUNS)
        if not runs:
            return count
        await _put(redis, runs)
        count += len(runs)


async def reconcile(redis: Any, queue: str, kinds: Sequence[str]) -> int:
    """Compare the waiting runs of these kinds with Redis and put back what is missing there; returns how many."""
    count, after = 0, None
    while True:
        async with get_async_session(read_only=True) as session:
            now = await job_run.database_now(session)
            wanted = Dispatchable(queue, kinds, now + HORIZON, only_undispatched=False)
            runs = await job_run.waiting_runs(session, wanted, after=after, limit=PAGE_RUNS)
        if not runs:
            return count
        after = runs[-1].id
        async with redis.pipeline(transaction=False) as pipe:
            for run in runs:
                pipe.zscore(queue, run.job_id)
            scores = await pipe.execute()
        missing = [run for run, score in zip(runs, scores, strict=True) if score is None or run.reason == "crashed"]
        if missing:
            await _put(redis, missing)
            count += len(missing)


async def _put(redis: Any, runs: Sequence[RunRow]) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for run in runs:
            keys = (wire.JOB_KEY, None, wire.IN_PROGRESS_KEY, wire.RETRY_KEY)
            names = [run.queue if key is None else key + run.job_id for key in keys]
            payload = wire.job_payload(run.kind, run.request, _milliseconds(run.enqueued_at))
            claimed_by_dead = "1" if run.reason == "crashed" else "0"
            pipe.eval(PUT_LUA, len(names), *names, payload, _milliseconds(run.due_at), run.job_id, claimed_by_dead)
        await pipe.execute()
    run_ids: list[UUID] = [run.id for run in runs]
    async with get_async_session() as session:
        await job_run.mark_dispatched(session, run_ids)


async def free_dead_claims(redis: Any, queue: str, running_job_ids: set[str]) -> int:
    """Take the claims away that workers left in Redis when they died between claim and admission.

    A living worker that stands at that very point loses nothing: the ledger admits one of the two.

    Args:
        redis: arq's connection.
        queue: the queue's key.
        running_job_ids: the job ids that the ledger knows to be running.

    Returns:
        How many claims were taken away.
    """
    freed, start = 0, 0
    while True:
        page: list[bytes] = await redis.zrange(queue, start, start + PAGE_RUNS - 1)
        if not page:
            return freed
        start += PAGE_RUNS
        ids = [raw.decode(errors="replace") for raw in page]
        suspects = [job_id for job_id in ids if job_id not in running_job_ids]
        if suspects:
            freed += int(await redis.delete(*(wire.IN_PROGRESS_KEY + job_id for job_id in suspects)))


def _milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)
