"""From the ledger into Redis: runs that were enqueued in the database, put back, or forgotten by Redis."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from db.connection import get_async_session, get_reader, get_reading_session
from db.in_time import in_time
from db.races import again_after_race
from db.repositories import due_runs, job_run, live_keys
from db.repositories.due_runs import FIRST_ID, Dispatchable
from db.repositories.job_run import RunRow
from holdfast import wire
from holdfast.states import RunState
from worker.ends import tell_end
from worker.ledger import AlreadyOver, end_cancelled, end_duplicate

PAGE_RUNS = 1000
CALL_RUNS = 250
CALL_BYTES = 8 * 1024 * 1024
"""How many runs, and bytes if they are more than one, go to Redis in one call, which does nothing else meanwhile."""
SURELY_SMALL = 256
"""Characters of a request that is below every limit, however it is written."""
HORIZON = timedelta(minutes=2)
"""Only runs due so soon go to Redis; the others wait in the ledger."""
LOOK_BACK = timedelta(seconds=30)
"""The usual look is for ids younger than this: time for a transaction to commit, and for clocks that differ. What comes
later is found by the sweep."""

PUT_LUA = """
local queue, leases, anew = KEYS[1], KEYS[2], tonumber(ARGV[1])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local payloads, entries, n = {}, {}, 0
for at = 2, #ARGV, 3 do
  local id, due = ARGV[at], ARGV[at + 1]
  payloads[#payloads + 1] = 'arq:job:' .. id
  payloads[#payloads + 1] = ARGV[at + 2]
  n = n + 1
  if n <= anew and tonumber(redis.call('ZSCORE', leases, id) or 0) <= now then
    redis.call('DEL', 'arq:in-progress:' .. id, 'arq:retry:' .. id, 'arq:result:' .. id)
    redis.call('ZADD', queue, due, id)
  else
    entries[#entries + 1] = due
    entries[#entries + 1] = id
  end
end
redis.call('MSET', unpack(payloads))
if #entries > 0 then redis.call('ZADD', queue, 'NX', unpack(entries)) end
"""
"""KEYS: queue, leases. ARGV: how many of the runs (the first) are begun anew, then of each run: job id, due (Unix ms),
payload. Of those that are begun anew it takes away what an earlier start left: a dead worker's claim, or the result of
a run that is replayed. A claim whose lease is not over is left alone: a living worker may have been quicker, and a dead
one's will be over soon."""
BEGUN_ANEW = frozenset({"crashed", "replayed"})
"""The reasons of such runs."""


async def dispatch(redis: Any, wanted: Dispatchable, *, after: UUID = FIRST_ID) -> int:
    """Put the runs that are not in Redis yet there; those of other kinds wait for a worker that knows them.

    Args:
        redis: arq's connection.
        wanted: which runs.
        after: only those above this id, as the watermark.

    Returns:
        How many were put. A crash before they are marked puts them there once more, which changes nothing.
    """
    count, marking, page = 0, None, None
    runs = await _page(wanted, after)
    try:
        while runs:
            is_last = len(runs) < PAGE_RUNS
            page = None if is_last else asyncio.create_task(_page(wanted, runs[-1].id))  # while this one is put
            run_ids = await _put(redis, runs)
            count += len(run_ids)
            if marking is not None:
                await marking
            marking = asyncio.create_task(_mark(run_ids))  # while the next one is put
            runs = () if page is None else await page
    finally:
        await _settle(page, marking)
    return count


async def _page(wanted: Dispatchable, after: UUID) -> Sequence[RunRow]:
    async with in_time(), get_reader() as reader:
        return await due_runs.undispatched_runs(reader, wanted, after=after, most=PAGE_RUNS)


async def _settle(page: asyncio.Task[Sequence[RunRow]] | None, marking: asyncio.Task[None] | None) -> None:
    if page is not None:
        page.cancel()  # unless it is through
        await asyncio.gather(page, return_exceptions=True)
    if marking is not None:
        await marking


async def dispatch_runs(redis: Any, kinds: Sequence[str], run_ids: Sequence[UUID]) -> int:
    """Put these runs into Redis, if they wait and are of these kinds: somebody has just let them go on.

    Returns:
        How many were put.
    """
    async with in_time(), get_reading_session() as session:
        runs = await due_runs.waiting_runs(session, kinds, run_ids)
    queues = dict.fromkeys(run.queue for run in runs)
    put_there = [run_id for queue in queues for run_id in await _put(redis, [r for r in runs if r.queue == queue])]
    await _mark(put_there)
    return len(put_there)


async def _put(redis: Any, runs: Sequence[RunRow]) -> list[UUID]:
    """Put waiting runs of one queue into Redis; returns which: some may end here, cancelled or as duplicates."""
    script = redis.register_script(PUT_LUA)
    runs = [run for run in runs if _is_ordinary(run) or await _may_start(redis, run)]
    for call in _calls(runs):
        anew = [run for run in call if run.reason in BEGUN_ANEW]
        arguments: list[Any] = [len(anew)]
        for run in (*anew, *(run for run in call if run.reason not in BEGUN_ANEW)) if anew else call:
            arguments += (run.job_id, milliseconds(run.due_at), payload_of(run))
        await script(keys=[call[0].queue, f"{call[0].queue}:leases"], args=arguments)
    return [run.id for run in runs]


def _calls(runs: Sequence[RunRow]) -> Iterator[Sequence[RunRow]]:
    start, size = 0, 0
    for at, run in enumerate(runs):
        size += len(run.request)
        if at > start and (at - start >= CALL_RUNS or size > CALL_BYTES):
            yield runs[start:at]
            start, size = at, len(run.request)
    if runs:
        yield runs[start:]


async def _mark(run_ids: Sequence[UUID]) -> None:
    if run_ids:
        async with in_time(), get_async_session(single=True) as session:
            await due_runs.mark_dispatched(session, run_ids)


def _is_ordinary(run: RunRow) -> bool:
    return run.cancel_requested_at is None and run.unique_key is None


async def _may_start(redis: Any, run: RunRow) -> bool:
    """Whether a run goes on; a cancelled one and a duplicate end here, and their producer is told."""

    async def transaction() -> tuple[RunRow, AlreadyOver] | None:
        async with in_time(), get_async_session() as session:
            locked = await job_run.get_run(session, run.id, lock=True)
            if locked is None or locked.state != RunState.WAITING.value:
                return None
            if locked.cancel_requested_at is not None:
                return locked, await end_cancelled(session, locked)
            if locked.unique_key is None:
                return None
            holder = await live_keys.take_live_key(session, locked)
            return None if holder is None else (locked, await end_duplicate(session, locked, holder))

    ended = await again_after_race(transaction)
    if ended is not None:
        await tell_end(redis, *ended)
    return ended is None


def payload_of(run: RunRow) -> bytes:
    """Return what stands in Redis of a run, of which at least the columns of ``ENTRY`` are given."""
    # Not as the database writes it: with PostgreSQL's blanks it may be larger than what its producer has measured.
    request = wire.compacted(run.request) if len(run.request) > SURELY_SMALL else run.request.encode()
    return wire.job_payload(run.kind, request, milliseconds(run.enqueued_at), unique_key=run.unique_key)


def milliseconds(instant: datetime) -> int:
    """Return Unix time in milliseconds, as the wire has it."""
    return round(instant.timestamp() * 1000)
