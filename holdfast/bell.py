"""The bell of a queue: what wakes idle workers when a transaction of the outbox was committed."""

import asyncio
from contextlib import suppress

from holdfast.connection import QueueConnection
from holdfast.errors import QueueUnavailable
from holdfast.wire import BELL_SUFFIX

GATHER_S = 0.02
"""Rings that come within so many seconds after one become one: a busy producer pays for few of them, 0.2 to 0.5 ms of
its processor each."""
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._call: asyncio.Task[None] | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._is_closing = False

    def ring(self, queue: str) -> None:
        """Ring soon. Returns at once and never fails; needs a running event loop, does nothing without one."""
        self._waiting.add(queue)
        if self._is_closing:
            return
        with suppress(RuntimeError):
            self._enter(asyncio.get_running_loop())
            if self._rest is None:
                self._begin()

    async def close(self) -> None:
        """Ring what has not been rung yet, within half a second."""
        self._is_closing = True
        self._enter(asyncio.get_running_loop())
        if self._rest is not None:
            self._rest.cancel()
        ending = asyncio.create_task(self._end())
        await asyncio.wait([ending], timeout=CLOSE_PATIENCE_S)
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)

    def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:  # what was begun in another one has ended with it, or never will
            self._loop, self._call, self._rest = loop, None, None

    def _begin(self) -> None:
        if self._waiting and (self._call is None or self._call.done()):
            self._call = asyncio.get_running_loop().create_task(self._ring())

    async def _ring(self) -> None:
        queues, self._waiting = self._waiting, set()
        rest_s = GATHER_S
        try:
            await self._connection.pipeline(*(("INCR", queue + BELL_SUFFIX) for queue in queues))
        except QueueUnavailable:
            rest_s = SILENT_S
        if not self._is_closing:
            self._rest = asyncio.get_running_loop().call_later(rest_s, self._rested)

    def _rested(self) -> None:
        self._rest = None
        self._begin()

    async def _end(self) -> None:
        if self._call is not None:
            await asyncio.gather(self._call, return_exceptions=True)
        if self._waiting:
            await self._ring()
