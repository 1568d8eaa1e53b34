"""A worker of the engine in the test's own process, and its jobs."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from arq import Retry
from arq.connections import RedisSettings
from arq.worker import func

from holdfast import wire
from tests.odd_errors import Panic
from tests.queue.engine.room import Room
from worker.queue import Worker
from worker.queue.scripts import QueueKeys

KEYS = QueueKeys(wire.DEFAULT_QUEUE)


class Jobs:
    """Jobs of a worker in the test's own process."""

    def __init__(self) -> None:
        self.starts: Counter[str] = Counter()
        self.gate = asyncio.Event()

    async def gated(self, ctx: dict[str, Any], *_arguments: Any) -> str:
        self.starts[ctx["job_id"]] += 1
        await self.gate.wait()
        return "done"

    async def again(self, ctx: dict[str, Any]) -> None:
        self.starts[ctx["job_id"]] += 1
        if ctx["job_try"] == 1:
            raise Retry
        await self.gate.wait()

    async def retrying(self, ctx: dict[str, Any], times: int) -> str:
        self.starts[ctx["job_id"]] += 1
        if ctx["job_try"] <= times:
            raise Retry
        return "done"

    async def panicking(self, ctx: dict[str, Any]) -> None:
        self.starts[ctx["job_id"]] += 1
        raise Panic("rust panicked")

    async def exiting(self, ctx: dict[str, Any]) -> None:
        self.starts[ctx["job_id"]] += 1
        sys.exit(3)


@asynccontextmanager
async def serving(room: Room, jobs: Jobs, **options: Any) -> AsyncIterator[Worker]:
    """Runs a worker while the block runs."""
    worker = Worker(
        [
            func(jobs.gated, name="gated"),
            func(jobs.again, name="again"),
            func(jobs.retrying, name="retrying", max_tries=100),
            func(jobs.panicking, name="panicking"),
            func(jobs.exiting, name="exiting"),
        ],
        redis_settings=RedisSettings.from_dsn(room.url),
        handle_signals=False,
        max_jobs=options.pop("max_jobs", 100),
        keep_result=600,
        allow_abort_jobs=True,
        job_serializer=wire.dumps,
        job_deserializer=wire.loads,
    )
    for name, value in options.items():
        setattr(worker, name, value)
    main = asyncio.create_task(worker.main())
    try:
        yield worker
    finally:
        main.cancel()
        await asyncio.gather(main, return_exceptions=True)
        await worker.close()


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - Redis does not set events
            await asyncio.sleep(0.01)


def all_ended(room: Room, job_ids: list[str]) -> bool:
    return bool(room.redis.exists(*(wire.RESULT_KEY + job_id for job_id in job_ids)) == len(job_ids))
