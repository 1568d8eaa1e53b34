"""A worker from its start to its end: as a process of its own, or inside another command."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial

from redis.exceptions import RedisError

from db.errors import first_line
from holdfast import wire
from holdfast.errors import QueueUnavailable
from worker import redis_server
from worker.burst import end_when_nothing_is_due
from worker.collector import spare_what_is_loaded
from worker.embedded import EmbeddedRedis
from worker.main import worker_kwargs
from worker.queue import Worker
from worker.redis_url import make_client
from worker.refusals import ask_the_ledger
from worker.runtime import Runtime
from worker.settings import Settings
from worker.stop_watch import StopWatch

REDIS_RETRY_S = 0.25


def run_worker(settings: Settings, *, burst: bool = False) -> None:
    """Run a worker until a signal ends it, as the whole of this process: on uvloop, where that is installed.

    Args and errors: as ``serve``.
    """
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(settings, burst=burst, stop_watch=StopWatch(settings.shutdown_grace_s)))


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the event loop of a worker: uvloop's, where that is installed; None: asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - there is none for Windows, nor for every Python
    except ImportError:
        return None
    return uvloop.new_event_loop


async def serve(settings: Settings, *, burst: bool = False, stop_watch: StopWatch | None = None) -> None:
    """Run a worker until a signal ends it.

    Args:
        settings: whose queue and database.
        burst: end as soon as nothing is due that may start here.
        stop_watch: ends the process if the worker does not come to its end in time.

    Raises:
        QueueUnavailable, DatabaseUnavailable, SchemaOutdated, EmbeddedQueueInUse: it cannot start.
    """
    embedded: AbstractContextManager[object] = nullcontext()
    if settings.queue_is_embedded:
        embedded = EmbeddedRedis(settings.holdfast_data_dir.absolute())
    with embedded:
        await _await_redis(settings)
        runtime = Runtime(settings, owns_queue=settings.queue_is_embedded)
        worker = Worker(**worker_kwargs(settings, runtime))
        worker.on_drain = runtime.begin_draining
        worker.on_bell = runtime.dispatch_soon
        worker.on_refused = partial(ask_the_ledger, runtime)
        worker.lease_s = settings.lease_s
        worker.max_payload_bytes = settings.max_payload_bytes
        worker.further_queues = runtime.queues[1:]
        worker.queue_slots = {queue.name: queue.slots for queue in settings.served_queues if queue.slots is not None}
        worker.functions_see_aborts = worker.functions_keep_time = worker.functions_take_slots = True
        worker.plain_serializer = wire.dumps_plain
        runtime.worker = worker
        if stop_watch is not None:  # the process is the worker's own
            runtime.on_started = spare_what_is_loaded
            stop_watch.listen(runtime.begin_draining, partial(_what_runs, worker, asyncio.get_running_loop()))
        main = asyncio.create_task(worker.async_run())
        watch = asyncio.create_task(end_when_nothing_is_due(worker, runtime)) if burst else None
        try:
            await main
        except asyncio.CancelledError:
            if not worker_was_stopped(worker, runtime):
                raise
        finally:
            if watch is not None:
                watch.cancel()
            await asyncio.shield(_drain(worker, runtime))
            for task in worker.tasks.values():
                if not task.cancelling():  # a second time would tear it away from recording how it ended
                    task.cancel()
            await asyncio.shield(worker.close())
            if stop_watch is not None:
                stop_watch.close()


def worker_was_stopped(worker: Worker, runtime: Runtime) -> bool:
    """Whether a signal or the end of a burst cancelled the worker's main task, and not whoever awaits it."""
    return runtime.is_draining or not worker.allow_pick_jobs


async def _drain(worker: Worker, runtime: Runtime) -> None:
    # Also an inline worker whose own run is over may have taken others: they end at their next batch, too.
    worker.claim_no_more()
    if worker.tasks and runtime.grace_left_s > 0:
        await asyncio.wait(worker.tasks.values(), timeout=runtime.grace_left_s)


def _what_runs(worker: Worker, loop: asyncio.AbstractEventLoop) -> str:
    """Name what keeps a process from its end; called from another thread."""
    if (blocker := asyncio.current_task(loop)) is not None:
        return f"{worker.name_of(blocker)} blocks the event loop"
    if worker.tasks:
        return f"not to be cancelled: {', '.join(list(worker.tasks)[:5])}"
    return ", ".join(thread.name for thread in threading.enumerate() if not thread.daemon)


@asynccontextmanager
async def inline_worker(settings: Settings) -> AsyncIterator[asyncio.Event]:
    """Run a worker while the block runs, for a run of the block's own: it serves the queue of the command line alone.

    Yields:
        An event that is set when the worker has ended by itself, because a signal told it to or it could not start.

    Raises:
        what ``serve`` raises.
    """
    ended = asyncio.Event()
    task = asyncio.create_task(serve(settings.model_copy(update={"queues": ()})))
    task.add_done_callback(lambda _: ended.set())
    try:
        yield ended
    finally:
        if not task.done():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _await_redis(settings: Settings) -> None:
    deadline = time.monotonic() + settings.startup_patience_s
    client = make_client(settings.redis_address, timeout_s=2.0)
    try:
        while True:
            try:
                await client.ping()
                refused = await redis_server.refusal(client, settings.served_queues[0].name)
            except (RedisError, OSError) as error:
                if time.monotonic() > deadline:
                    reason = first_line(error).rstrip(".")
                    message = f"REDIS_URL {settings.queue_home}: {reason}; start Redis or correct the URL"
                    raise QueueUnavailable(message, outcome="refused") from error
                await asyncio.sleep(REDIS_RETRY_S)
            else:
                break
    finally:
        await client.aclose()
    if refused is not None:
        message = f"REDIS_URL {settings.queue_home}: {refused.rule}; {refused.advice}"
        raise QueueUnavailable(message, outcome="refused")
