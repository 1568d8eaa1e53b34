"""A worker with plain arq functions that leave marks in a file; `python -m tests.queue.engine.worker_script`.

Its options are the JSON in `ENGINE_OPTIONS`, as `Room.start` writes them.
"""

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from arq import Retry, cron
from arq.connections import RedisSettings
from arq.worker import Worker as StockWorker
from arq.worker import func

from holdfast import wire
from worker.queue import Worker

OPTIONS: dict[str, Any] = json.loads(os.environ.get("ENGINE_OPTIONS", "{}"))
LOOK_S = 0.02


def mark(ctx: dict[str, Any], event: str) -> None:
    """Append one line to the marks: one `write`, so that lines of several processes do not mix."""
    line = {"event": event, "job_id": ctx["job_id"], "pid": os.getpid(), "job_try": ctx["job_try"], "at": time.time()}
    descriptor = os.open(OPTIONS["marks"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


async def opened(gate: str) -> None:
    """Returns when another process has opened the gate; the empty one is open."""
    while gate and not (Path(OPTIONS["marks"]).parent / gate).exists():  # noqa: ASYNC110 - by a process
        await asyncio.sleep(LOOK_S)


async def gated(ctx: dict[str, Any], gate: str = "gate") -> int:
    """Runs until the gate is opened."""
    mark(ctx, "start")
    await opened(gate)
    mark(ctx, "end")
    return os.getpid()


async def sleeping(ctx: dict[str, Any], seconds: float) -> int:
    """Takes its time."""
    mark(ctx, "start")
    await asyncio.sleep(seconds)
    mark(ctx, "end")
    return os.getpid()


async def quick(ctx: dict[str, Any], *_arguments: Any, **_named: Any) -> int:
    """Is over at once."""
    mark(ctx, "start")
    mark(ctx, "end")
    return os.getpid()


async def blocking(ctx: dict[str, Any], seconds: float) -> int:
    """Blocks the event loop."""
    mark(ctx, "start")
    time.sleep(seconds)  # noqa: ASYNC251 - that is the fault
    mark(ctx, "end")
    return os.getpid()


async def stubborn(ctx: dict[str, Any]) -> None:
    """Does not end when it is cancelled."""
    mark(ctx, "start")
    while True:
        try:
            await asyncio.sleep(LOOK_S)
        except asyncio.CancelledError:
            mark(ctx, "cancelled")


async def yielding(ctx: dict[str, Any]) -> str:
    """Returns when it is cancelled, as if it had come to its end."""
    mark(ctx, "start")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        mark(ctx, "cancelled")
    return "yielded"


async def retrying(ctx: dict[str, Any], times: int, gate: str = "", defer_s: float = 0.0) -> int:
    """Asks for another try so many times, each time when the gate is open."""
    mark(ctx, "start")
    await opened(gate)
    if ctx["job_try"] <= times:
        raise Retry(defer=defer_s)
    mark(ctx, "end")
    return os.getpid()


FUNCTIONS = (gated, sleeping, quick, blocking, stubborn, yielding, retrying)


def make_worker() -> StockWorker:
    """The worker that the options ask for."""
    engine = {name: OPTIONS.pop(name) for name in list(OPTIONS) if hasattr(Worker, name)}
    url, stock = OPTIONS["redis_url"], OPTIONS.get("stock", False)
    worker = (StockWorker if stock else Worker)(
        functions=[func(function, keep_result=600) for function in FUNCTIONS] + [func(gated, name="once", max_tries=1)],
        cron_jobs=[cron(gated, name="cron:gated", month=1, day=1, hour=0, minute=0)] if OPTIONS.get("cron") else None,
        queue_name=OPTIONS.get("queue", wire.DEFAULT_QUEUE),
        redis_settings=RedisSettings.from_dsn(url),
        max_jobs=OPTIONS.get("max_jobs", 10),
        job_completion_wait=OPTIONS.get("grace_s", 0),
        keep_result=600,
        allow_abort_jobs=True,
        poll_delay=OPTIONS.get("poll_delay_s", 0.5),
        job_serializer=wire.dumps,
        job_deserializer=wire.loads,
        log_results=False,
    )
    for name, value in engine.items():
        setattr(worker, name, value)
    return worker


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    make_worker().run()
