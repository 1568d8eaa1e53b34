"""Doing for many callers at once what each asked for alone: one transaction for all that came meanwhile."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
T = TypeVar("T")


class Answer(Generic[T]):
    """What somebody asked for, in a while: to be awaited by one at a time.

    A cancellation ends the waiting and not what is waited for: who waits again gets it all the same. It does what
    ``asyncio.shield`` does, at half its cost: each run waits for two of them.
    """

    __slots__ = ("_future", "_loop", "_source", "is_abandoned")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[T] = loop.create_future()
        self._source: asyncio.Future[T] | None = None
        self.is_abandoned = False
        """Whether nobody works on it any more, so that it will not come."""

    def __await__(self) -> Generator[Any, None, T]:
        return self._open().__await__()

    @classmethod
    def of(cls, coroutine: Coroutine[Any, Any, T]) -> "Answer[T]":
        """Start a task; the answer is what it returns or raises."""
        loop = asyncio.get_running_loop()
        answer = cls(loop)
        answer.follow(loop.create_task(coroutine))
        return answer

    def done(self) -> bool:
        """Whether it has come."""
        return self._future.done() and not self._future.cancelled()

    def give(self, value: T) -> None:
        """Let it come."""
        self._open().set_result(value)

    def fail(self, error: BaseException) -> None:
        """Let an error come in its place."""
        if isinstance(error, asyncio.CancelledError):
            self.is_abandoned = True
            self._future.cancel()
        else:
            self._open().set_exception(error)
            self._future.exception()  # asyncio need not say so where nobody waits for it any more

    def follow(self, source: asyncio.Future[T]) -> None:
        """Let it come, or the error, from a future or task."""
        self._source = source  # the event loop alone would not keep a task
        source.add_done_callback(self._take)

    def _take(self, source: asyncio.Future[T]) -> None:
        error = asyncio.CancelledError() if source.cancelled() else source.exception()
        if error is None:
            self.give(source.result())
        else:
            self.fail(error)

    def _open(self) -> asyncio.Future[T]:
        if self._future.cancelled() and not self.is_abandoned:
            self._future = self._loop.create_future()
        return self._future


class Group(Generic[Item, T]):
    """Collects items while the group before them is under way, and hands them to ``act`` together.

    Args:
        act: takes the items and returns an answer for each, in their order. Where the answer takes longer than the
            others' it returns a future of it, for which neither they nor the next group wait. What ``act`` itself
            raises, every caller gets.
        most: the largest group.
    """

    def __init__(
        self,
        act: Callable[[Sequence[Item]], Awaitable[Sequence[T | asyncio.Future[T]]]],
        *,
        most: int = 200,
    ) -> None:
        self._act = act
        self._most = most
        self._waiting: deque[tuple[Item, Answer[T]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._late: set[asyncio.Future[T]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def submit(self, item: Item) -> Answer[T]:
        """Hand an item in, for good."""
        if self._loop is None:  # Python 3.11 looks it up by a system call
            self._loop = asyncio.get_running_loop()
        answer: Answer[T] = Answer(self._loop)
        self._waiting.append((item, answer))
        if self._task is None or self._task.done():
            self._task = self._loop.create_task(self._work())
        return answer

    async def drain(self) -> None:
        """Wait until everything that was handed in is answered."""
        while self._late or (self._task is not None and not self._task.done()):
            pending: list[asyncio.Future[Any]] = [*self._late, *([] if self._task is None else [self._task])]
            await asyncio.wait(pending)

    async def _work(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            try:
                values = await self._act([item for item, _ in group])
            except BaseException as error:
                for _, answer in group:
                    answer.fail(error)
                if isinstance(error, asyncio.CancelledError):
                    raise
                continue
            for (_, answer), value in zip(group, values, strict=True):
                if isinstance(value, asyncio.Future):
                    self._late.add(value)
                    value.add_done_callback(self._late.discard)
                    answer.follow(value)
                else:
                    answer.give(value)
