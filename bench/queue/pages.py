"""A page of what is queued: 50 of very many."""

import asyncio
import time

from arq.connections import RedisSettings, create_pool
from arq.jobs import serialize_job

from bench.queue.arena import OURS_LEDGERED, QUEUE, Arena
from bench.queue.ledger_rows import fill_ledger
from bench.queue.scale import Scale
from bench.queue.table import Row, at_most_times
from db.connection import DatabaseManager
from db.repositories import run_list
from db.repositories.run_list import RunFilter
from db.settings import DatabaseSettings
from holdfast import wire

PAGE = 50
FILLED_AT_ONCE = 5_000


def pages(arena: Arena, scale: Scale) -> list[Row]:
    """List 50 of 100,000 waiting runs (and of 1,000,000), beside arq's list of its queue."""
    shallow, deep = scale.of(100_000), scale.of(1_000_000)
    ours = asyncio.run(_ours(arena, shallow, scale.repeats))
    ours_deep = asyncio.run(_ours(arena, deep, scale.repeats))
    stock = [asyncio.run(_stock(arena, shallow))]  # once: it takes half a minute
    return [
        Row(f"a page of {PAGE} of {shallow:,} queued", "ms", ours, stock, target=at_most_times(1 / 100)),
        Row(
            f"a page of {PAGE} of {deep:,} queued",
            "ms",
            ours_deep,
            ours,
            f"of {shallow:,}",
            at_most_times(1.5),
            by_rounds=False,
        ),
    ]


async def _ours(arena: Arena, count: int, repeats: int) -> list[float]:
    await asyncio.to_thread(arena.clean, OURS_LEDGERED)
    await fill_ledger(arena.database_url, count)
    manager = DatabaseManager(DatabaseSettings(database_url=arena.database_url))
    try:
        await _page(manager)
        return [await _page(manager) for _ in range(repeats)]
    finally:
        await manager.close()


async def _page(manager: DatabaseManager) -> float:
    began = time.perf_counter()
    async with manager.session(read_only=True) as session:
        rows = await run_list.list_runs(session, RunFilter(state="waiting"), limit=PAGE)
    assert len(rows) == PAGE  # noqa: S101 - a page of nothing would be fast
    return 1000 * (time.perf_counter() - began)


async def _stock(arena: Arena, count: int) -> float:
    await asyncio.to_thread(arena.clean)
    pool = await create_pool(RedisSettings.from_dsn(arena.redis_server.url))
    now_ms = time.time_ns() // 1_000_000
    payload = serialize_job("noop", (), {"x": 0.0}, None, now_ms)
    for start in range(0, count, FILLED_AT_ONCE):
        async with pool.pipeline(transaction=False) as pipe:
            for number in range(start, min(start + FILLED_AT_ONCE, count)):
                pipe.set(f"{wire.JOB_KEY}{number:032x}", payload)
                pipe.zadd(QUEUE, {f"{number:032x}": now_ms})
            await pipe.execute()
    began = time.perf_counter()
    jobs = await pool.queued_jobs()
    seconds = time.perf_counter() - began
    await pool.aclose(close_connection_pool=True)
    assert len(jobs) == count  # noqa: S101 - it has no pages: it reads all
    return 1000 * seconds
