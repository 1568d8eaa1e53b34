"""Waiting for results, for any number of runs at once: told by Redis where it can, else polled."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from holdfast import wire
from holdfast.connection import QueueConnection
from holdfast.errors import QueueUnavailable
from holdfast.push import PushRefused, ResultPush

GROUP = 500
"""Runs that are looked at in one call."""
SWEEP_S = 2.0
"""Seconds after which all runs are looked at though nothing was told: news may be lost, and runs may vanish."""
FIRST_POLL_S = 0.02
SLOWEST_POLL_S = 0.25
VANISHED_GRACE_S = 60.0
"""A run that Redis knew and lost is put back by the workers' reconciliation; so long a waiting handle gives them."""


@dataclass(slots=True, eq=False)
class _Waiter:
    future: asyncio.Future[bytes | None]
    may_be_absent: bool
    known: bool = False
    missing_since: float = 0.0

    def settle(self, result: bytes | None) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def note(self, now: float, *, is_queued: bool) -> None:
        """Take note of whether Redis has the run, and give up where it has not."""
        if is_queued:
            self.known, self.missing_since = True, now
        elif not self.may_be_absent and (not self.known or now - self.missing_since >= VANISHED_GRACE_S):
            self.settle(None)


class ResultWatch:
    """Hands results to those who wait for them; it asks Redis once for all of them, and only while somebody waits."""

    def __init__(self, connection: QueueConnection) -> None:
        self._connection = connection
        self._waiters: dict[str, list[_Waiter]] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._push: ResultPush | None = ResultPush(connection, self._on_change)
        self._pause_s = FIRST_POLL_S

    async def result(self, run_id: str, *, may_be_absent: bool) -> bytes | None:
        """Wait for a run's result.

        Args:
            run_id: the run.
            may_be_absent: whether a run that Redis does not know is waited for.

        Returns:
            What stands under its result key, or None when Redis does not know the run.

        Raises:
            QueueUnavailable: Redis refused or did not answer.
        """
        waiter = _Waiter(asyncio.get_running_loop().create_future(), may_be_absent)
        self._waiters.setdefault(run_id, []).append(waiter)
        self._on_change((run_id,))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())
        try:
            return await waiter.future
        finally:
            others = self._waiters[run_id]
            others.remove(waiter)
            if not others:
                del self._waiters[run_id]

    async def close(self) -> None:
        """Stop; whoever still waits is told so."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if self._push is not None:
            await self._push.close()
        self._fail(QueueUnavailable("the client was closed while a result was waited for", outcome="refused"))

    def _on_change(self, run_ids: Iterable[str] | None) -> None:
        self._changed.update(self._waiters if run_ids is None else run_ids)
        self._pause_s = FIRST_POLL_S
        self._wake.set()

    async def _serve(self) -> None:
        """Look at what has changed, and now and then at everything, until nobody waits."""
        try:
            sweep_at = time.monotonic() + SWEEP_S
            while self._waiters:
                await self._open_push()
                self._wake.clear()
                changed, self._changed = self._changed, set()
                is_sweep = self._is_polling or time.monotonic() >= sweep_at
                await self._look(list(self._waiters) if is_sweep else [at for at in changed if at in self._waiters])
                if is_sweep:
                    sweep_at = time.monotonic() + SWEEP_S
                    await self._check_push()
                await asyncio.sleep(0)  # those who have their result leave
                if self._waiters:
                    await self._pause(sweep_at - time.monotonic())
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            self._fail(error)

    async def _open_push(self) -> None:
        if self._push is None or self._push.is_alive:
            return
        await self._push.close()
        try:
            await self._push.open()
        except PushRefused:
            self._push = None
        self._changed.update(self._waiters)  # nothing that was read before is told of

    @property
    def _is_polling(self) -> bool:
        return self._push is None or not self._push.is_alive

    async def _check_push(self) -> None:
        if self._push is not None:
            await self._push.check()

    async def _pause(self, until_sweep_s: float) -> None:
        pause_s = until_sweep_s
        if self._is_polling:
            pause_s, self._pause_s = self._pause_s, min(self._pause_s * 1.5, SLOWEST_POLL_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._wake.wait()

    async def _look(self, run_ids: Sequence[str]) -> None:
        for group in _groups(run_ids):
            rest = await self._settle(group)
            if not rest:
                continue
            scores = await self._connection.call("ZMSCORE", self._connection.queue, *rest)
            absent = [run_id for run_id, score in zip(rest, scores, strict=True) if score is None]
            # Once more: they may have ended between the two looks.
            unknown = set(await self._settle(absent)) if absent else set()
            now = time.monotonic()
            for run_id in rest:
                for waiter in self._waiters.get(run_id, ()):
                    waiter.note(now, is_queued=run_id not in unknown)

    async def _settle(self, run_ids: Sequence[str]) -> list[str]:
        """Hand out the results that are there; return the runs without one."""
        rest = []
        for run_id, result in zip(run_ids, await self._read(run_ids), strict=True):
            if result is None:
                rest.append(run_id)
                continue
            for waiter in self._waiters.get(run_id, ()):
                waiter.settle(result)
        return rest

    async def _read(self, run_ids: Sequence[str]) -> list[bytes | None]:
        if self._push is not None and self._push.is_alive:
            told = await self._push.results(run_ids)
            if told is not None:
                return told
        answer: list[bytes | None] = await self._connection.call(
            "MGET", *(wire.RESULT_KEY + run_id for run_id in run_ids)
        )
        return answer

    def _fail(self, error: Exception) -> None:
        for waiter in [waiter for waiters in self._waiters.values() for waiter in waiters]:
            if not waiter.future.done():
                waiter.future.set_exception(_copy(error))


def _copy(error: Exception) -> Exception:
    """Return an error of each waiter's own: a traceback grows where it is raised."""
    if isinstance(error, QueueUnavailable):
        return QueueUnavailable(str(error), outcome=error.outcome)
    return error


def _groups(run_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(run_ids), GROUP):
        yield run_ids[start : start + GROUP]
