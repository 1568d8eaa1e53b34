"""The bell of a queue: what wakes idle workers when a transaction of the outbox was committed."""

import asyncio
from contextlib import suppress

from holdfast.connection import QueueConnection
from holdfast.errors import QueueUnavailable
from holdfast.wire import BELL_SUFFIX

GATHER_S = 0.005
"""Rings that come within so many seconds after one become one: a busy producer pays for few of them."""
SILENT_S = 1.0
"""Seconds without a ring after one that failed; workers look by themselves."""
CLOSE_PATIENCE_S = 0.5


class Bell:
    """Rings in the background, as often as needed and no oftener; a ring that is lost delays a run and loses nothing.

    Args:
        connection: to the Redis of the queues.
    """

    def __init__(self, connection: QueueConnection) -> None:
        self._connection = connection
        self._waiting: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    def ring(self, queue: str) -> None:
        """Ring soon. Returns at once and never fails; needs a running event loop, does nothing without one."""
        self._waiting.add(queue)
        if self._closing.is_set() or (self._task is not None and not self._task.done()):
            return
        with suppress(RuntimeError):
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Ring what has not been rung yet, within half a second."""
        self._closing.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=CLOSE_PATIENCE_S)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            queues, self._waiting = self._waiting, set()
            pause_s = GATHER_S
            try:
                await self._connection.pipeline(*(("INCR", queue + BELL_SUFFIX) for queue in queues))
            except QueueUnavailable:
                pause_s = SILENT_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._closing.wait()
