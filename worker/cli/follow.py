"""Enqueueing from the command line and following a run to its end."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import click

from db.connection import get_async_session, get_reading_session
from db.errors import first_line, is_transient
from db.repositories import run_list, worker_heartbeat
from db.repositories.job_run import RunRow
from holdfast import outbox
from holdfast.client import Client
from holdfast.errors import HoldfastError
from holdfast.requests import JobReport, JobRequest
from holdfast.states import RunState
from worker.cli.progress import progress_bar
from worker.cli.terminal import INTERRUPTED_CODE, Failure
from worker.embedded import EmbeddedQueueInUse, is_listening
from worker.process import inline_worker
from worker.settings import Settings

POLL_S = 0.1
NO_WORKER_AFTER_S = 2.0
LEDGER_PATIENCE_S = 10.0
"""Seconds for which a database that went away while we wait is asked again."""


async def enqueue_request(
    settings: Settings, request: JobRequest[Any], *, at: datetime | None = None, unique_key: str | None = None
) -> UUID:
    """Enqueue in the ledger, from where a worker takes the run: no Redis can lose it.

    Raises:
        ValueError: the unique key is empty or too long, or a text cannot be stored; one line that says so.
        QueueUnavailable: there is a Redis to be used, and it does not answer; nothing is enqueued then.
    """
    if settings.queue_is_embedded:
        return await _write_run(settings, request, at, unique_key)
    async with Client(settings.redis_address, queue=settings.queue_key) as client:
        await client.ping()
        run_id = await _write_run(settings, request, at, unique_key)
        client.ring()
    return run_id


async def _write_run(settings: Settings, request: JobRequest[Any], at: datetime | None, unique_key: str | None) -> UUID:
    async with get_async_session() as session:
        return await outbox.enqueue(
            session,
            request,
            at=at,
            queue=settings.queue_key,
            unique_key=unique_key,
            max_payload_bytes=settings.max_payload_bytes,
        )


async def finish_run(settings: Settings, run_id: UUID) -> RunRow:
    """Wait for a run's end with a progress bar; where the embedded queue has no worker, be the worker.

    Returns:
        The run's row, in a final state, or waiting when this process was told to stop.

    Raises:
        Failure: the wait was interrupted.
        DatabaseUnavailable, QueueUnavailable, EmbeddedQueueInUse: a worker was needed and could not start.
    """
    if not settings.queue_is_embedded:
        return await _follow(settings, run_id)
    deadline = time.monotonic() + settings.startup_patience_s
    while True:
        if _has_embedded_worker(settings):
            run = await _follow(settings, run_id, given_up=lambda: not _has_embedded_worker(settings))
            if RunState(run.state).is_over:
                return run
            continue  # the other worker has ended, so it is our turn
        try:
            async with inline_worker(settings) as stopped:
                return await _follow(settings, run_id, given_up=stopped.is_set, inline=True)
        except EmbeddedQueueInUse:  # another process takes it at this moment
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(POLL_S)


async def _follow(
    settings: Settings, run_id: UUID, *, given_up: Callable[[], bool] = lambda: False, inline: bool = False
) -> RunRow:
    """Poll the ledger until the run is over or it is given up, and show its progress meanwhile."""
    notes = _Notes(settings, run_id, inline=inline)
    try:
        async with Client(settings.redis_address, queue=settings.queue_key) as client:
            handle = client.run(str(run_id), JobReport)
            with progress_bar() as show:
                while True:
                    last_look = given_up()
                    run = await _look(run_id)
                    with suppress(HoldfastError):
                        show(await handle.progress())
                    if last_look or RunState(run.state).is_over:
                        return run
                    await notes.update(run)
                    await asyncio.sleep(POLL_S)
    except asyncio.CancelledError:  # Ctrl-C, while no worker of ours has taken the signal
        goes_on = "it waits; `python -m worker run` goes on with it" if inline else "it goes on without you"
        message = f"stopped waiting for run {run_id}: {goes_on}; `python -m worker runs show {run_id}` shows it"
        raise Failure(message, exit_code=INTERRUPTED_CODE) from None


async def _look(run_id: UUID) -> RunRow:
    deadline = time.monotonic() + LEDGER_PATIENCE_S
    while True:
        try:
            async with get_reading_session() as session:
                run = await run_list.find_run(session, run_id)
        except Exception as error:
            if not is_transient(error) and not isinstance(error, OSError):
                raise
            if time.monotonic() > deadline:
                message = f"the database went away ({first_line(error)}) while run {run_id} was waited for: it goes on"
                raise Failure(
                    f"{message} when the database is back; see `python -m worker runs show {run_id}`"
                ) from None
            await asyncio.sleep(POLL_S)
            continue
        if run is None:
            raise Failure(f"run {run_id} is not in the ledger any more: somebody has deleted it")
        return run


class _Notes:
    """What a waiting user is told besides the progress: that no worker is alive, and that an attempt has failed."""

    def __init__(self, settings: Settings, run_id: UUID, *, inline: bool) -> None:
        self._settings = settings
        self._run_id = run_id
        self._check_workers_at = float("inf") if inline else time.monotonic() + NO_WORKER_AFTER_S
        self._told_attempt = 0

    async def update(self, run: RunRow) -> None:
        """Say what is new."""
        if run.state == RunState.WAITING.value and time.monotonic() > self._check_workers_at:
            self._check_workers_at = float("inf")
            await self._say_if_no_worker()
        if run.reason == "retry" and run.attempts > self._told_attempt:
            self._told_attempt = run.attempts
            message = (run.error or {}).get("message", "")
            click.echo(f"attempt {run.attempts} failed ({message}); it is tried again at {run.due_at:%X} UTC", err=True)

    async def _say_if_no_worker(self) -> None:
        settings = self._settings
        async with get_reading_session() as session:
            workers = await worker_heartbeat.list_workers(session, timeout_s=settings.heartbeat_timeout_s)
        if not any(worker.serves(settings.queue_home, settings.queue_key) for worker in workers):
            click.echo(
                f"waiting: no worker of {settings.queue_key} is alive at {settings.queue_home}; start one with "
                f"`python -m worker run` (run {self._run_id} stays queued if you stop waiting)",
                err=True,
            )


def _has_embedded_worker(settings: Settings) -> bool:
    return is_listening(settings.holdfast_data_dir.absolute())
