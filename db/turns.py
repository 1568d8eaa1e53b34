"""One writer at a time in this process, in the order in which they came.

SQLite has one writer and no queue for it: whoever waits looks again and again, and may never come at the right moment
beside a long import. Here the sessions of a process wait in line, over all its threads and event loops. Other processes
still wait as SQLite lets them (``busy_timeout``).
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from db.errors import DatabaseBusy, NestedWriteSession

PATIENCE_S = 30.0
"""Seconds to wait for a turn, as long as SQLite waits for another process."""


@dataclass(slots=True, eq=False)
class _Waiting:
    loop: asyncio.AbstractEventLoop
    come: asyncio.Future[None]
    is_next: bool = False

    def wake(self) -> None:
        if not self.come.done():
            self.come.set_result(None)


class Turns:
    """The line before one database."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._line: deque[_Waiting] = deque()
        self._is_taken = False
        self._holder: asyncio.Task[Any] | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait in line, and be the one writer while the block runs.

        Raises:
            NestedWriteSession: this task is the writer already and would wait for itself.
            DatabaseBusy: the turn did not come in time.
        """
        task = asyncio.current_task()
        if self._holder is task:
            raise NestedWriteSession(
                "this task has a writing session open already: SQLite has one writer, and a second session would wait "
                "for the first one's end; use the session that is open, or get_async_session(read_only=True)"
            )
        await self._take()
        self._holder = task
        try:
            yield
        finally:
            self._holder = None
            self._pass_on()

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        with self._mutex:
            if not self._is_taken:
                self._is_taken = True
                return
            waiting = _Waiting(loop, loop.create_future())
            self._line.append(waiting)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await waiting.come
        except BaseException as error:
            with self._mutex:
                if not waiting.is_next:
                    self._line.remove(waiting)
            if waiting.is_next:
                self._pass_on()
            if isinstance(error, TimeoutError):
                raise DatabaseBusy(
                    f"the database is locked: others of this process wrote for {PATIENCE_S:g} s"
                ) from None
            raise

    def _pass_on(self) -> None:
        with self._mutex:
            while self._line:
                waiting = self._line.popleft()
                waiting.is_next = True
                try:
                    waiting.loop.call_soon_threadsafe(waiting.wake)
                except RuntimeError:  # its loop is closed: nobody waits there any more
                    continue
                return
            self._is_taken = False


_lines: dict[str, Turns] = {}
_lines_mutex = threading.Lock()


def turns_of(database: str) -> Turns:
    """Return this process's line before an SQLite database.

    Args:
        database: its file, however many pools are open on it.
    """
    with _lines_mutex:
        return _lines.setdefault(database, Turns())
