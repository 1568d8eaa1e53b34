"""From the ledger into Redis: runs that were enqueued in the database, put back, or forgotten by Redis."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from db.connection import get_async_session
from db.repositories import due_runs, job_run
from db.repositories.due_runs import Dispatchable
from db.repositories.job_run import RunRow
from holdfast import wire
from holdfast.errors import RunCancelled
from holdfast.states import RunState
from worker.ledger import AlreadyOver, again_after_race, end_duplicate

PAGE_RUNS = 500
RESULT_KEPT_S = 3600
HORIZON = timedelta(minutes=2)
"""Only runs due so soon go to Redis; the others wait in the ledger."""
LOOK_BACK = timedelta(seconds=30)
"""The usual look is for ids younger than this: time for a transaction to commit, and for clocks that differ. What comes
later is found by the sweep."""

PUT_AT_ONCE = 200
PUT_LUA = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for at = 1, #ARGV, 4 do
  local payload, due, id = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  redis.call('SET', KEYS[at + 2], payload)
  if ARGV[at + 3] == '1' and tonumber(redis.call('ZSCORE', KEYS[2], id) or 0) <= now then
    redis.call('DEL', KEYS[at + 3], KEYS[at + 4], KEYS[at + 5])
    redis.call('ZADD', KEYS[1], due, id)
  else
    redis.call('ZADD', KEYS[1], 'NX', due, id)
  end
end
"""
"""KEYS: queue, leases, then of each run job, in-progress, retry, result. ARGV of each run: payload, due (Unix ms), job
id, 1 to take away what an earlier start left: a dead worker's claim, or the result of a run that is replayed. A claim
whose lease is not over is left alone: a living worker may have been quicker, and a dead one's will be over soon."""


async def dispatch(redis: Any, wanted: Dispatchable, *, after: UUID | None = None) -> int:
    """Put the runs that are not in Redis yet there; those of other kinds wait for a worker that knows them.

    Args:
        redis: arq's connection.
        wanted: which runs.
        after: only those above this id, as the watermark; None: all.

    Returns:
        How many were put. A crash before they are marked puts them there once more, which changes nothing.
    """
    count = 0
    while True:
        async with get_async_session(read_only=True) as session:
            runs = await due_runs.undispatched_runs(session, wanted, after=after, limit=PAGE_RUNS)
        if runs:
            after = runs[-1].id
            count += await put(redis, runs)
        if len(runs) < PAGE_RUNS:
            return count


async def dispatch_runs(redis: Any, kinds: Sequence[str], run_ids: Sequence[UUID]) -> int:
    """Put these runs into Redis, if they wait and are of these kinds: somebody has just let them go on.

    Returns:
        How many were put.
    """
    async with get_async_session(read_only=True) as session:
        runs = await due_runs.waiting_runs(session, kinds, run_ids)
    queues = dict.fromkeys(run.queue for run in runs)
    return sum([await put(redis, [run for run in runs if run.queue == queue]) for queue in queues])


async def put(redis: Any, runs: Sequence[RunRow]) -> int:
    """Put waiting runs of one queue into Redis; returns how many, for some may end here as duplicates."""
    runs = [run for run in runs if run.unique_key is None or await _may_live(redis, run)]
    if not runs:
        return 0
    script = redis.register_script(PUT_LUA)
    for start in range(0, len(runs), PUT_AT_ONCE):
        keys: list[str] = [runs[0].queue, f"{runs[0].queue}:leases"]
        arguments: list[Any] = []
        for run in runs[start : start + PUT_AT_ONCE]:
            job_id = run.job_id
            keys += (wire.JOB_KEY + job_id, wire.IN_PROGRESS_KEY + job_id)
            keys += (wire.RETRY_KEY + job_id, wire.RESULT_KEY + job_id)
            anew = 1 if run.reason in {"crashed", "replayed"} else 0
            arguments += (_payload(run), _milliseconds(run.due_at), job_id, anew)
        await script(keys=keys, args=arguments)
    run_ids: list[UUID] = [run.id for run in runs]
    async with get_async_session() as session:
        await due_runs.mark_dispatched(session, run_ids)
    return len(runs)


async def _may_live(redis: Any, run: RunRow) -> bool:
    """Decide a run's unique key; a duplicate ends here, and its producer is told."""

    async def transaction() -> AlreadyOver | None:
        async with get_async_session() as session:
            locked = await job_run.get_run(session, run.id, lock=True)
            if locked is None or locked.state != RunState.WAITING.value:
                return None
            holder = await job_run.take_live_key(session, locked)
            return None if holder is None else await end_duplicate(session, locked, holder)

    duplicate = await again_after_race(transaction)
    if duplicate is None:
        return True
    error = duplicate.error or {}
    ended = RunCancelled(str(run.id), error["type"], error["message"], duplicate_of=error["duplicate_of"])
    now_ms = time.time_ns() // 1_000_000
    result = wire.dumps(
        {
            "t": 1,
            "f": run.kind,
            "a": [],
            "k": run.request,
            "et": _milliseconds(run.enqueued_at),
            "s": False,
            "r": ended,
            "st": now_ms,
            "ft": now_ms,
            "q": run.queue,
            "id": run.job_id,
        }
    )
    await redis.set(wire.RESULT_KEY + run.job_id, result, ex=RESULT_KEPT_S)
    return False


def _payload(run: RunRow) -> bytes:
    return wire.job_payload(run.kind, run.request, _milliseconds(run.enqueued_at), unique_key=run.unique_key)


def _milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)
