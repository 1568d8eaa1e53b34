"""The worker's signs of life in the ledger, from a thread of its own: a job that blocks the loop is not dead."""

import asyncio
import os
import socket
import threading
import time
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import DatabaseManager, get_async_session
from db.errors import first_line
from db.repositories import worker_heartbeat
from worker.logs import get_logger
from worker.settings import Settings

REMEMBERED_S = 24 * 3600.0
"""How long the row of a worker that died is kept, to be looked at."""
FORGET_INTERVAL_S = 3600.0


class Heartbeat:
    """Writes ``worker_heartbeats`` every ``HEARTBEAT_INTERVAL_S`` seconds over one connection of its own."""

    def __init__(self, settings: Settings, worker_id: str) -> None:
        self._settings = settings.model_copy(update={"database_pool_size": 1, "database_max_overflow": 0})
        self._worker_id = worker_id
        self._forget_at = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="holdfast-heartbeat", daemon=True)

    async def start(self) -> None:
        """Write the first sign of life over the process's pool, then go on in the thread."""
        async with get_async_session() as session:  # before anything is admitted: no other worker may think us dead
            await self._beat(session)
        self._thread.start()

    async def stop(self) -> None:
        """End the thread and take this worker's row away."""
        self._stop.set()
        if self._thread.ident is None:
            return
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        asyncio.run(self._beat_until_stopped())

    async def _beat_until_stopped(self) -> None:
        manager = DatabaseManager(self._settings)
        failing = False
        try:
            while not self._stop.is_set():
                try:
                    async with manager.session() as session:
                        await self._beat(session)
                    await self._forget_the_dead(manager)
                    failing = False
                except (SQLAlchemyError, OSError) as error:
                    if not failing:
                        get_logger().warning("the heartbeat cannot be written", error=first_line(error))
                    failing = True
                await asyncio.to_thread(self._stop.wait, self._settings.heartbeat_interval_s)
            with suppress(SQLAlchemyError, OSError):
                async with manager.session() as session:
                    await worker_heartbeat.forget(session, [self._worker_id])
        finally:
            await manager.close()

    async def _forget_the_dead(self, manager: DatabaseManager) -> None:
        if time.monotonic() < self._forget_at:
            return
        async with manager.session() as session:
            await worker_heartbeat.forget_silent(session, silent_s=REMEMBERED_S)
        self._forget_at = time.monotonic() + FORGET_INTERVAL_S

    async def _beat(self, session: AsyncSession) -> None:
        await worker_heartbeat.beat(
            session,
            self._worker_id,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            queue_home=self._settings.queue_home,
        )
