"""Time limits without a timer for each: what ends soon costs nothing, and only what lasts gets one."""

import asyncio
from types import TracebackType
from typing import Any, Self

TICK_S = 0.25


class Deadlines:
    """The time limits of one event loop's jobs."""

    def __init__(self) -> None:
        self._open: dict[Limit, None] = {}
        self._tick: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop, which Python 3.11 looks up by a system call."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def limit(self, seconds: float) -> "Limit":
        """Return a context manager that ends its block after so many seconds, as ``asyncio.timeout`` does."""
        return Limit(self, seconds)

    def add(self, limit: "Limit") -> None:
        """Watch a limit that has begun."""
        self._open[limit] = None
        if self._tick is None:
            self._tick = self.loop.call_later(TICK_S, self._look)

    def remove(self, limit: "Limit") -> None:
        """Watch it no longer."""
        self._open.pop(limit, None)

    def _look(self) -> None:
        loop = self.loop
        soon = loop.time() + 2 * TICK_S  # a tick may be late
        near = [limit for limit in self._open if limit.when <= soon]
        for limit in near:
            limit.arm(loop)
            del self._open[limit]
        self._tick = loop.call_later(TICK_S, self._look) if self._open else None


class Limit:
    """One block's time limit."""

    __slots__ = ("_cancelling", "_deadlines", "_is_over", "_seconds", "_task", "_timer", "when")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False
        self.when = 0.0

    def __enter__(self) -> Self:
        loop = self._deadlines.loop
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - a coroutine that runs has one
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self.when = loop.time() + self._seconds
        if self._seconds > 2 * TICK_S:
            self._deadlines.add(self)
        else:
            self.arm(loop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is None:
            self._deadlines.remove(self)
            return
        self._timer.cancel()
        if self._is_over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    @property
    def task_is_cancelled(self) -> bool:
        """After the block: whether somebody else than the limit has cancelled its task meanwhile."""
        return self._task.cancelling() > self._cancelling

    def arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer."""
        self._timer = loop.call_at(self.when, self._expire)

    def _expire(self) -> None:
        self._is_over = True
        self._task.cancel()
