"""The worker's signs of life in the ledger, from a thread of its own: a job that blocks the loop is not dead."""

import asyncio
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db.connection import DatabaseManager, get_async_session
from db.errors import first_line
from db.in_time import in_time
from db.models import WorkerState
from db.repositories import worker_heartbeat
from db.repositories.worker_heartbeat import WorkerIdentity
from worker.logs import get_logger
from worker.settings import Settings

REMEMBERED_S = 24 * 3600.0
"""How long the row of a worker that died is kept, to be looked at."""
FORGET_INTERVAL_S = 3600.0
JOIN_PATIENCE_S = 5.0
LEAST_PATIENCE_S = 0.5


class Heartbeat:
    """Writes ``worker_heartbeats`` every ``HEARTBEAT_INTERVAL_S`` seconds over one connection of its own.

    Args:
        settings: whose database and queues.
        worker_id: this worker.
        state: tells what it does at the moment; it is asked in the thread.
    """

    def __init__(self, settings: Settings, worker_id: str, state: Callable[[], WorkerState]) -> None:
        self._settings = settings.model_copy(update={"database_pool_size": 1, "database_max_overflow": 0})
        self._identity = WorkerIdentity(
            worker_id,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            queue_home=settings.queue_home,
            queues=tuple(queue.name for queue in settings.served_queues),
        )
        # So that there is time for another try, on another connection, before others take this worker for dead.
        self._patience_s = max(LEAST_PATIENCE_S, settings.heartbeat_timeout_s / 3)
        self._state = state
        self._forget_at = 0.0
        self._is_stopping = False
        self._failed_at = -math.inf
        self._woken = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="holdfast-heartbeat", daemon=True)

    async def start(self) -> None:
        """Write the first sign of life over the process's pool, then go on in the thread."""
        async with (
            in_time(),
            get_async_session() as session,
        ):  # before anything is admitted: no other worker may think us dead
            await self._beat(session)
        self._thread.start()

    def beat_now(self) -> None:
        """Write the next sign of life at once: the worker's state has changed."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._woken.set)

    async def stop(self) -> None:
        """End the thread and take this worker's row away."""
        self._is_stopping = True
        if self._thread.ident is None:
            return
        self.beat_now()
        # A daemon: where the database does not answer, it ends with the process.
        await asyncio.to_thread(self._thread.join, JOIN_PATIENCE_S)

    @property
    def is_steady(self) -> bool:
        """Whether no sign of life has failed for a whole timeout: else others may live whose signs failed as well."""
        return time.monotonic() - self._failed_at > self._settings.heartbeat_timeout_s

    def _run(self) -> None:
        asyncio.run(self._beat_until_stopped())

    async def _beat_until_stopped(self) -> None:
        manager = DatabaseManager(self._settings)
        connect = manager.single if manager.statements_stand_alone else manager.get_connection
        failing, self._loop = False, asyncio.get_running_loop()
        try:
            while True:
                self._woken.clear()  # first: what changes from now on is for the next round
                if self._is_stopping:
                    break
                try:
                    async with asyncio.timeout(None if manager.writers_take_turns else self._patience_s):
                        async with connect() as own:
                            await self._beat(own)
                        await self._forget_the_dead(manager)
                    failing = False
                except Exception as error:  # noqa: BLE001 - whatever it was: a silent worker counts as dead
                    self._failed_at = time.monotonic()
                    if not failing:
                        expected = isinstance(error, SQLAlchemyError | OSError)
                        log = get_logger().warning if expected else get_logger().exception
                        log("the heartbeat cannot be written", error=first_line(error))
                    failing = True
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.heartbeat_interval_s):
                        await self._woken.wait()
            with suppress(SQLAlchemyError, OSError):
                async with manager.session() as session:
                    await worker_heartbeat.forget(session, [self._identity.worker_id])
        finally:
            await manager.close()

    async def _forget_the_dead(self, manager: DatabaseManager) -> None:
        if time.monotonic() < self._forget_at:
            return
        async with manager.session() as session:
            await worker_heartbeat.forget_silent(session, silent_s=REMEMBERED_S)
        self._forget_at = time.monotonic() + FORGET_INTERVAL_S

    async def _beat(self, connection: AsyncConnection | AsyncSession) -> None:
        await worker_heartbeat.beat(connection, self._identity, self._state())
