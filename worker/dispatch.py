"""From the ledger into Redis: runs that were enqueued in the database, put back, or forgotten by Redis."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from db.connection import get_async_session, get_reader
from db.races import again_after_race
from db.repositories import due_runs, job_run
from db.repositories.due_runs import FIRST_ID, Dispatchable
from db.repositories.job_run import RunRow
from holdfast import wire
from holdfast.states import RunState
from worker.ends import tell_end
from worker.ledger import AlreadyOver, end_cancelled, end_duplicate

PAGE_RUNS = 1000
CALL_RUNS = 200
"""How many go to Redis in one call, which does nothing else meanwhile."""
HORIZON = timedelta(minutes=2)
"""Only runs due so soon go to Redis; the others wait in the ledger."""
LOOK_BACK = timedelta(seconds=30)
"""The usual look is for ids younger than this: time for a transaction to commit, and for clocks that differ. What comes
later is found by the sweep."""

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


async def dispatch(redis: Any, wanted: Dispatchable, *, after: UUID = FIRST_ID) -> int:
    """Put the runs that are not in Redis yet there; those of other kinds wait for a worker that knows them.

    Args:
        redis: arq's connection.
        wanted: which runs.
        after: only those above this id, as the watermark.

    Returns:
        How many were put. A crash before they are marked puts them there once more, which changes nothing.
    """
    count, marking = 0, None
    try:
        while True:
            async with get_reader() as reader:
                runs = await due_runs.undispatched_runs(reader, wanted, after=after, most=PAGE_RUNS)
            if runs:
                after = runs[-1].id
                run_ids = await _put(redis, runs)
                if marking is not None:
                    await marking
                marking = asyncio.create_task(_mark(run_ids))  # while the next page is read and put
                count += len(run_ids)
            if len(runs) < PAGE_RUNS:
                return count
    finally:
        if marking is not None:
            await marking


async def dispatch_runs(redis: Any, kinds: Sequence[str], run_ids: Sequence[UUID]) -> int:
    """Put these runs into Redis, if they wait and are of these kinds: somebody has just let them go on.

    Returns:
        How many were put.
    """
    async with get_async_session(read_only=True) as session:
        runs = await due_runs.waiting_runs(session, kinds, run_ids)
    queues = dict.fromkeys(run.queue for run in runs)
    put_there = [run_id for queue in queues for run_id in await _put(redis, [r for r in runs if r.queue == queue])]
    await _mark(put_there)
    return len(put_there)


async def _put(redis: Any, runs: Sequence[RunRow]) -> list[UUID]:
    """Put waiting runs of one queue into Redis; returns which: some may end here, cancelled or as duplicates."""
    runs = [run for run in runs if await _may_start(redis, run)]
    script = redis.register_script(PUT_LUA)
    for start in range(0, len(runs), CALL_RUNS):
        keys: list[str] = [runs[0].queue, f"{runs[0].queue}:leases"]
        arguments: list[Any] = []
        for run in runs[start : start + CALL_RUNS]:
            job_id = run.job_id
            keys += (wire.JOB_KEY + job_id, wire.IN_PROGRESS_KEY + job_id)
            keys += (wire.RETRY_KEY + job_id, wire.RESULT_KEY + job_id)
            anew = 1 if run.reason in {"crashed", "replayed"} else 0
            arguments += (_payload(run), _milliseconds(run.due_at), job_id, anew)
        await script(keys=keys, args=arguments)
    return [run.id for run in runs]


async def _mark(run_ids: Sequence[UUID]) -> None:
    if run_ids:
        async with get_async_session(single=True) as session:
            await due_runs.mark_dispatched(session, run_ids)


async def _may_start(redis: Any, run: RunRow) -> bool:
    """Whether a run goes on; a cancelled one and a duplicate end here, and their producer is told."""
    if run.cancel_requested_at is None and run.unique_key is None:
        return True

    async def transaction() -> tuple[RunRow, AlreadyOver] | None:
        async with get_async_session() as session:
            locked = await job_run.get_run(session, run.id, lock=True)
            if locked is None or locked.state != RunState.WAITING.value:
                return None
            if locked.cancel_requested_at is not None:
                return locked, await end_cancelled(session, locked)
            if locked.unique_key is None:
                return None
            holder = await job_run.take_live_key(session, locked)
            return None if holder is None else (locked, await end_duplicate(session, locked, holder))

    ended = await again_after_race(transaction)
    if ended is not None:
        await tell_end(redis, *ended)
    return ended is None


def _payload(run: RunRow) -> bytes:
    request = run.request.encode()  # the ledger's own text
    return wire.job_payload(run.kind, request, _milliseconds(run.enqueued_at), unique_key=run.unique_key)


def _milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)
