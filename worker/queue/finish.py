"""Telling Redis that runs are over or go back, many at a time; retried until Redis has heard it."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from worker.queue import scripts
from worker.queue.claims import Claimed
from worker.queue.outage import Outage

GROUP = 100
UNHELD = 2
FIRST_PAUSE_S = 0.05
SLOWEST_PAUSE_S = 1.0


@dataclass(slots=True, eq=False)
class Finish:
    """The end of one claim."""

    claimed: Claimed
    how: Literal["over", "back", "away"]
    """``over``: it has ended, with its result if there is one; ``back``: its entry goes back; ``away``: the entry is
    taken out of the queue, and nobody is told an end."""
    result: bytes | None = None
    result_ms: int | None = None
    """How long the result is kept; None: for ever."""
    job_try: int | None = None
    """For a run that goes back: the new retry counter."""
    delay_ms: int | None = None
    """For a run that goes back: due so much later; None: its old place."""
    keep_in_progress_ms: int | None = None

    then: Callable[[], Awaitable[None]] | None = None
    """What is to be done once Redis has it; not where another worker has the run."""
    heard: asyncio.Future[bool] | None = None
    """For whoever waits: True when Redis has it, False when another worker has the run."""

    def arguments(self, usual_ms: int | None) -> tuple[bytes, int, bytes, str]:
        """Return what the script takes for one run; most end alike, and need few words.

        Args:
            usual_ms: how long results are kept where nothing else is said.
        """
        how, result = "", self.result or b""
        if self.how != "over" or self.result_ms != usual_ms or self.keep_in_progress_ms is not None:
            px = self.job_try if self.how == "back" else self.result_ms
            shown = ("" if value is None else str(value) for value in (px, self.delay_ms, self.keep_in_progress_ms))
            how = ",".join((self.how, *shown))
        return self.claimed.raw_id, self.claimed.number, result, how


class Finisher:
    """Groups what ends at the same time into one call. While one call is under way the next group gathers.

    Args:
        redis: the worker's connection.
        token: who this worker is.
        outage: what is known of Redis.
        on_heard: called with each end; True when Redis has it, False when another worker has the run.
    """

    def __init__(self, redis: Any, token: bytes, outage: Outage, on_heard: Callable[[Finish, bool], None]) -> None:
        self._on_heard = on_heard
        self._script = redis.register_script(scripts.FINISH)
        self._token = token
        self._outage = outage
        self._waiting: deque[Finish] = deque()
        self._task: asyncio.Task[None] | None = None

    def submit(self, finish: Finish) -> None:
        """Hand in an end."""
        self._waiting.append(finish)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._flush())

    async def drain(self) -> None:
        """Wait until everything that was handed in has been heard."""
        while self._task is not None and not self._task.done():
            await asyncio.shield(self._task)

    def abandon(self) -> None:
        """Give up what Redis has not heard."""
        if self._task is not None:
            self._task.cancel()

    async def _flush(self) -> None:
        while self._waiting:
            keys = self._waiting[0].claimed.keys
            group: list[Finish] = []
            while self._waiting and len(group) < GROUP and self._waiting[0].claimed.keys == keys:
                group.append(self._waiting.popleft())
            told = await self._tell(keys.all(), group)
            for finish, mine in zip(group, told, strict=True):
                self._on_heard(finish, mine)

    async def _tell(self, keys: tuple[str, ...], group: list[Finish]) -> list[bool]:
        usual_ms = group[0].result_ms
        arguments: list[Any] = [self._token, len(group), "" if usual_ms is None else usual_ms]
        for finish in group:
            arguments += finish.arguments(usual_ms)
        told = await self._until_heard(keys, arguments)
        if UNHELD in told:
            # Seldom, so only now with the payloads, by which Redis knows whether they are still the same runs.
            payloads = [finish.claimed.payload or b"" for finish in group]
            second = await self._until_heard(keys, [*arguments, *payloads])
            told = [again if first == UNHELD else first for first, again in zip(told, second, strict=True)]
        return [bool(mine) for mine in told]

    async def _until_heard(self, keys: tuple[str, ...], arguments: list[Any]) -> list[int]:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                async with self._outage.guarded("finish"):
                    answer: list[int] = await self._script(keys=keys, args=arguments)
                    return answer
            except self._outage.errors:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, SLOWEST_PAUSE_S)
