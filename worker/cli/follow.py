"""Enqueueing from the command line and following a run to its end."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from db.connection import get_async_session
from db.repositories import job_run, worker_heartbeat
from db.repositories.job_run import RunRow
from holdfast import outbox
from holdfast.client import Client
from holdfast.errors import HoldfastError
from holdfast.ids import uuid7
from holdfast.progress import Progress
from holdfast.requests import JobReport, JobRequest
from holdfast.states import RunState
from worker.cli.terminal import Failure
from worker.embedded import is_listening
from worker.process import inline_worker
from worker.settings import Settings

POLL_S = 0.1
NO_WORKER_AFTER_S = 2.0


async def enqueue_request(settings: Settings, request: JobRequest[Any], *, at: datetime | None = None) -> UUID:
    """Enqueue by the door that is open: Redis, or the ledger where the embedded queue is not running."""
    run_id = uuid7()
    if settings.queue_is_embedded and not is_listening(settings.holdfast_data_dir.absolute()):
        async with get_async_session() as session:
            return await outbox.enqueue(session, request, at=at, queue=settings.queue_name, run_id=run_id)
    async with Client(settings.redis_address, queue=settings.queue_name) as client:
        await client.enqueue(request, at=at, run_id=str(run_id))
    return run_id


async def finish_run(settings: Settings, run_id: UUID) -> RunRow:
    """Wait for a run's end with a progress bar; where the embedded queue has no worker, be the worker.

    Returns:
        The run's row, in a final state, or waiting when this process was told to stop.
    """
    if settings.queue_is_embedded and not is_listening(settings.holdfast_data_dir.absolute()):
        async with inline_worker(settings) as stopped:
            return await follow(settings, run_id, stopped=stopped)
    return await follow(settings, run_id)


async def follow(settings: Settings, run_id: UUID, *, stopped: asyncio.Event | None = None) -> RunRow:
    """Poll the ledger until the run is over, and show its progress meanwhile."""
    loop = asyncio.get_running_loop()
    started, warned = loop.time(), stopped is not None
    async with Client(settings.redis_address, queue=settings.queue_name) as client, _bar() as show:
        handle = client.run(str(run_id), JobReport)
        while True:
            async with get_async_session(read_only=True) as session:
                run = await job_run.get_run(session, run_id)
            with suppress(HoldfastError):
                show(await handle.progress())
            if run is not None and RunState(run.state).is_over:
                return run
            if stopped is not None and stopped.is_set():
                if run is None:
                    raise Failure(f"run {run_id} was not started")
                return run
            if not warned and run is None and loop.time() - started > NO_WORKER_AFTER_S:
                warned = True
                await _say_if_no_worker(settings, run_id)
            await asyncio.sleep(POLL_S)


async def _say_if_no_worker(settings: Settings, run_id: UUID) -> None:
    async with get_async_session(read_only=True) as session:
        alive = await worker_heartbeat.live_workers(
            session, timeout_s=settings.heartbeat_timeout_s, queue_home=settings.queue_home
        )
    if not alive:
        click.echo(
            f"waiting: no worker is alive at {settings.queue_home}; start one with `python -m worker run` "
            f"(run {run_id} stays queued if you stop waiting)",
            err=True,
        )


@asynccontextmanager
async def _bar() -> AsyncIterator[Any]:
    """Yield a function that shows a ``Progress``; it does nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        _Amount(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    ]
    with ProgressBar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("running", total=None, note="", unit="rows")

        def show(progress: Progress | None) -> None:
            if progress is not None:
                note = "  ".join(f"{name} {count:,}" for name, count in progress.counters.items() if count)
                bar.update(task, completed=progress.done, total=progress.total, note=note, unit=progress.unit)

        yield show


class _Amount(DownloadColumn):
    """Bytes as sizes, everything else as counts."""

    def render(self, task: Any) -> Any:
        """Draw the cell."""
        return super().render(task) if task.fields.get("unit") == "bytes" else MofNCompleteColumn().render(task)
