"""Claiming behind runs that are being performed."""

import asyncio
import statistics
import time

from redis.asyncio import Redis

from bench.queue.arena import QUEUE, Arena
from bench.queue.scale import Scale
from bench.queue.table import Row, at_most_times
from holdfast import wire
from worker.queue.claims import Claimer, LeaseTerms
from worker.queue.scripts import MAX_ENTRIES, QueueKeys

RUNNING = 5_000
CLAIMS = 1_000


def behind_running(arena: Arena, scale: Scale) -> list[Row]:
    """Claim one run at a time, behind none and behind many that are leased."""
    behind_many, behind_none = [], []
    for _ in scale.rounds():
        behind_none.append(asyncio.run(_claims(arena, running=0, claims=scale.of(CLAIMS))))
        behind_many.append(asyncio.run(_claims(arena, running=RUNNING, claims=scale.of(CLAIMS))))
    name = f"a claim behind {RUNNING:,} running"
    return [Row(name, "ms", behind_many, behind_none, "behind none", at_most_times(1.5))]


async def _claims(arena: Arena, *, running: int, claims: int) -> float:
    arena.clean()
    async with Redis.from_url(arena.redis_server.url) as redis:
        await _queue(redis, "running", running)
        other = _claimer(redis, b"other")
        while await other.claim(MAX_ENTRIES):
            pass
        await _queue(redis, "waiting", claims)
        claimer, found = _claimer(redis, b"mine"), []
        for _ in range(claims):
            began = time.perf_counter()
            got = await claimer.claim(1)
            found.append(1000 * (time.perf_counter() - began))
            assert len(got) == 1  # noqa: S101 - a claim of nothing would be fast
    return statistics.median(found)


def _claimer(redis: "Redis", token: bytes) -> Claimer:
    terms = LeaseTerms(
        token=token, lease_ms=600_000, in_progress_ms=600_000, max_payload_bytes=1024 * 1024, see_aborts=True
    )
    return Claimer(redis, QueueKeys(QUEUE), terms)


async def _queue(redis: "Redis", name: str, count: int) -> None:
    now_ms = time.time_ns() // 1_000_000
    payload = wire.dumps({"t": None, "f": "noop", "a": [], "k": {"x": 0.0}, "et": now_ms})
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(count):
            pipe.set(f"{wire.JOB_KEY}{name}-{number}", payload)
            pipe.zadd(QUEUE, {f"{name}-{number}": now_ms - 1000})
        await pipe.execute()
