"""Asking the sentinels, again and again, which server is the master.

A master that is replaced while it lives is demoted ten seconds later only: until then its connections go on working,
and what is written through them is lost.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import RedisError

INTERVAL_S = 1.0


class MasterWatch:
    """Watches while a worker runs; does nothing where there are no sentinels.

    Args:
        pool: of the worker's connections.
        on_change: called when another server is the master.
    """

    def __init__(self, pool: Any, on_change: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        if isinstance(pool, SentinelConnectionPool):
            self._task = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Watch no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        known = self._pool.master_address
        while True:
            await asyncio.sleep(INTERVAL_S)
            try:
                master = await self._pool.get_master_address()
            except (RedisError, OSError):
                continue  # no sentinel answers, or there is no master: what is connected goes on
            if master != known:
                known = master
                await self._on_change()
