"""Doing for many callers at once what each asked for alone: one transaction for all that came meanwhile."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Group(Generic[Item, Answer]):
    """Collects items while the group before them is under way, and hands them to ``act`` together.

    Args:
        act: takes the items and returns an answer for each, in their order. Where the answer takes longer than the
            others' it returns a future of it, for which neither they nor the next group wait. What ``act`` itself
            raises, every caller gets.
        most: the largest group.
    """

    def __init__(
        self,
        act: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | asyncio.Future[Answer]]]],
        *,
        most: int = 100,
    ) -> None:
        self._act = act
        self._most = most
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._late: set[asyncio.Future[Answer]] = set()

    def submit(self, item: Item) -> asyncio.Future[Answer]:
        """Hand an item in; the future is its answer. Cancelling the future does not take the item back."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._work())
        return future

    async def drain(self) -> None:
        """Wait until everything that was handed in is answered."""
        while self._late or (self._task is not None and not self._task.done()):
            pending: list[asyncio.Future[Any]] = [*self._late, *([] if self._task is None else [self._task])]
            await asyncio.wait(pending)

    async def _work(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            try:
                answers = await self._act([item for item, _ in group])
            except BaseException as error:
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                if isinstance(error, asyncio.CancelledError):
                    raise
                continue
            for (_, future), answer in zip(group, answers, strict=True):
                if isinstance(answer, asyncio.Future):
                    self._late.add(answer)
                    answer.add_done_callback(partial(self._pass_on, future))
                elif not future.done():
                    future.set_result(answer)

    def _pass_on(self, future: asyncio.Future[Answer], late: asyncio.Future[Answer]) -> None:
        self._late.discard(late)
        if late.cancelled():
            future.cancel()
        elif (error := late.exception()) is not None:
            if not future.done():
                future.set_exception(error)
        elif not future.done():
            future.set_result(late.result())
