"""Stock arq as it is measured: its own worker and producer, with its defaults but for the number of slots."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.worker import Worker

from bench.queue.kinds import fields_of
from bench.queue.marks import mark
from bench.queue.ours import value_of
from holdfast import wire

AT_ONCE = 50
"""arq has no call for many jobs: so many are enqueued side by side."""
TUNED: dict[str, Any] = {"poll_delay": 0.01, "queue_read_limit": 10_000}


async def noop(ctx: dict[str, Any], x: float = 0.0) -> None:
    """Leave a mark."""
    del ctx, x
    mark()


async def stamp(ctx: dict[str, Any], t0: float) -> None:
    """Leave a mark with the producer's time."""
    del ctx
    mark(t0)


async def nap(ctx: dict[str, Any], seconds: float) -> None:
    """Sleep, then leave a mark."""
    del ctx
    await asyncio.sleep(seconds)
    mark()


def run_worker(redis_url: str, *, slots: int, tuned: bool) -> None:
    """Run arq's worker until a signal ends it.

    Args:
        redis_url: whose queue.
        slots: jobs at the same time.
        tuned: a short poll, a long read and uvloop where it is installed, as its users tune it.
    """
    if tuned and find_spec("uvloop") is not None:
        import_module("uvloop").install()
    asyncio.set_event_loop(asyncio.new_event_loop())
    settings = RedisSettings.from_dsn(redis_url)
    more = TUNED if tuned else {}
    Worker(functions=[noop, stamp, nap], redis_settings=settings, max_jobs=slots, **more).run()


class StockProducer:
    """arq's producer.

    Args:
        redis_url: whose queue.
        as_json: write JSON, as our workers read it; otherwise pickles, arq's default.
    """

    def __init__(self, redis_url: str, *, as_json: bool) -> None:
        self._settings = RedisSettings.from_dsn(redis_url)
        self._as_json = as_json
        self._pool: ArqRedis | None = None

    async def open(self) -> None:
        """Connect."""
        codec: dict[str, Any] = {"job_serializer": wire.dumps, "job_deserializer": wire.loads} if self._as_json else {}
        self._pool = await create_pool(self._settings, **codec)

    async def close(self) -> None:
        """Disconnect."""
        if self._pool is not None:
            await self._pool.aclose(close_connection_pool=True)

    async def enqueue(self, job: str, value: float, due: datetime | None = None) -> None:
        """Enqueue one job."""
        assert self._pool is not None  # noqa: S101 - open() comes first
        fields: dict[str, Any] = fields_of(job, value)
        await self._pool.enqueue_job(job, _defer_until=due, **fields)

    async def enqueue_many(self, job: str, count: int) -> None:
        """Enqueue many jobs, ``AT_ONCE`` at a time."""
        for size in _sizes(count):
            await asyncio.gather(*(self.enqueue(job, value_of(job)) for _ in range(size)))


def _sizes(count: int) -> Iterator[int]:
    for start in range(0, count, AT_ONCE):
        yield min(AT_ONCE, count - start)
