"""What lives as long as the worker: the pool, the heartbeat, and the tasks that keep ledger and Redis together."""

import asyncio
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from db import migrate
from db.connection import close_database, database_is_open, get_async_session, initialize_database
from db.errors import first_line
from db.repositories import job_run
from holdfast.requests import ImportTasks
from jobs.import_tasks.spool import sweep
from jobs.registry import JOBS
from worker import dispatch, ledger
from worker.heartbeat import Heartbeat
from worker.ledger import Vitals
from worker.logs import get_logger
from worker.settings import Settings

RECONCILE_INTERVAL_S = 60.0


class Runtime:
    """The worker's startup and shutdown; jobs find the settings and the state of the process here."""

    def __init__(self, settings: Settings, *, owns_queue: bool) -> None:
        self.settings = settings
        self.worker_id = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self.vitals = Vitals(self.worker_id, settings.queue_home, owns_queue, settings.heartbeat_timeout_s)
        self.active: set[UUID] = set()
        """The runs that this process is performing."""
        self.draining = asyncio.Event()
        """Set when the worker was told to stop."""
        self.started = asyncio.Event()
        """Set when the startup hook is through."""
        self.redis: Any = None
        self._owns_pool = False
        self._heartbeat = Heartbeat(settings, self.worker_id)
        self._kinds = tuple(JOBS)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, ctx: dict[str, Any]) -> None:
        """Open the pool, say hello in the ledger and put back what was left; arq's startup hook.

        Raises:
            DatabaseUnavailable: the database does not take connections.
            SchemaOutdated: its tables are not of this version.
        """
        ctx["runtime"] = self
        self.redis = ctx["redis"]
        settings = self.settings
        if settings.database_is_embedded:
            settings.holdfast_data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._owns_pool = not database_is_open()  # a command that runs a worker inside itself goes on using its own
        manager = await initialize_database(settings, patience_s=settings.startup_patience_s)
        if settings.database_migrates_itself:
            await migrate.upgrade(settings)
        await migrate.require_current(manager)
        await self._heartbeat.start()
        await self.put_back()
        await self.reconcile()
        await self._sweep_spool()
        self._tasks = [
            asyncio.create_task(self._every(settings.dispatch_interval_s, self._dispatch)),
            asyncio.create_task(self._every(settings.heartbeat_interval_s, self.put_back)),
            asyncio.create_task(self._every(RECONCILE_INTERVAL_S, self.reconcile)),
        ]
        self.started.set()
        get_logger().info("worker started", worker_id=self.worker_id, queue=settings.queue_name)

    async def stop(self, ctx: dict[str, Any]) -> None:
        """Say goodbye and close the pool; arq's shutdown hook."""
        del ctx
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task
        await self._heartbeat.stop()
        if self._owns_pool:
            await close_database()
        if self.started.is_set():
            get_logger().info("worker stopped", worker_id=self.worker_id)

    async def put_back(self) -> None:
        """Put the runs of dead workers back into the queue."""
        queue = self.settings.queue_name
        run_ids = await ledger.put_back_orphans(self.vitals, queue, active_here=self.active)
        for run_id in run_ids:
            get_logger().warning("a dead worker's run was put back", run_id=str(run_id))
        if run_ids:
            await self._dispatch()

    async def reconcile(self) -> None:
        """Compare ledger and Redis, and mend what differs."""
        queue = self.settings.queue_name
        async with get_async_session(read_only=True) as session:
            running = {run.job_id for run in await job_run.running_runs(session, queue)}
        await dispatch.free_dead_claims(self.redis, queue, running)
        if missing := await dispatch.reconcile(self.redis, queue, self._kinds):
            get_logger().info("waiting runs were put into Redis again", runs=missing)

    async def _dispatch(self) -> None:
        await dispatch.dispatch(self.redis, self.settings.queue_name, self._kinds)

    async def _sweep_spool(self) -> None:
        async with get_async_session(read_only=True) as session:
            needed = await job_run.live_sources(session, ImportTasks.kind)
        sweep(self.settings.spool_dir, needed)

    async def _every(self, interval_s: float, action: Callable[[], Awaitable[None]]) -> None:
        failing = False
        while True:
            await asyncio.sleep(interval_s)
            try:
                await action()
                failing = False
            except Exception as error:  # noqa: BLE001 - whatever it was: without upkeep, runs would be forgotten
                if not failing:
                    expected = isinstance(error, SQLAlchemyError | RedisError | OSError)
                    log = get_logger().warning if expected else get_logger().exception
                    log(f"{action.__name__.strip('_')} failed, trying on", error=first_line(error))
                failing = True
