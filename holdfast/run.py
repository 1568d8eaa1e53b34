"""A handle to one run: its state, its progress, its report."""

import asyncio
from contextlib import suppress
from typing import Any, Generic, NoReturn

from pydantic import ValidationError

from holdfast import wire
from holdfast.connection import QueueConnection
from holdfast.errors import RunCancelled, RunFailed, RunNotFound, WireFormatError
from holdfast.progress import Progress
from holdfast.requests import ReportT
from holdfast.scripts import CANCEL
from holdfast.states import RunState
from holdfast.watch import ResultWatch

MOST_FOLLOWED = 8
"""Runs that are followed from a duplicate to the run that stands for it; one is what the ledger makes."""


class Run(Generic[ReportT]):
    """A handle to one run.

    ``followed_id`` is None until the run turns out to be the duplicate of another one; then it is that run's id, and
    state, progress and report are that run's.
    """

    __slots__ = ("_connection", "_may_be_absent", "_report_type", "_watch", "followed_id", "id")

    def __init__(
        self, connections: tuple[QueueConnection, ResultWatch], run_id: str, report_type: type[Any], *, in_ledger: bool
    ) -> None:
        self.id = run_id
        self.followed_id: str | None = None
        self._connection, self._watch = connections
        self._report_type = report_type
        self._may_be_absent = in_ledger

    async def status(self) -> RunState:
        """Return the run's state as Redis knows it; a run that was born in the ledger and is not there is waiting.

        Raises:
            RunNotFound: Redis does not know it (any more).
            QueueUnavailable: Redis refused or did not answer.
        """
        found = await self._follow()
        return found.state if isinstance(found, wire.WireResult) else found

    async def progress(self) -> Progress | None:
        """Return how far the run has come, or None when it has not said so yet (or its result has expired).

        Raises:
            WireFormatError: what Redis holds is no progress.
            QueueUnavailable: Redis refused or did not answer.
        """
        data = await self._connection.call("GET", wire.PROGRESS_KEY + (self.followed_id or self.id))
        if data is None:
            return None
        try:
            return Progress.model_validate(wire.loads(data))
        except ValidationError as error:
            raise WireFormatError(f"progress of run {self.id}: {error.errors()[0]['msg']}") from None

    async def result(self, *, timeout_s: float | None = None) -> ReportT:
        """Wait until the run is over and return its report.

        Args:
            timeout_s: how long to wait, in seconds; for ever if not given. 0: look once.

        Raises:
            RunFailed: the run is over without a report (``RunCancelled`` when it was cancelled).
            RunNotFound: Redis does not know the run.
            TimeoutError: it was not over in time; it goes on.
            QueueUnavailable: Redis refused or did not answer; the run goes on, wait once more.
            WireFormatError: the report does not fit its type.
        """
        result = await self._end_within(timeout_s)
        if not result.succeeded:
            run_id = self.followed_id or self.id
            if result.state is RunState.CANCELLED:
                raise RunCancelled(run_id, result.error_type, result.message, duplicate_of=result.duplicate_of)
            raise RunFailed(run_id, result.error_type, result.message)
        try:
            report: ReportT = self._report_type.model_validate(result.report)
        except ValidationError as invalid:
            raise WireFormatError(f"report of run {self.id}: {invalid.errors()[0]['msg']}") from None
        return report

    async def cancel(self) -> bool:
        """Ask for the run's end, whether it waits or runs; ``result`` raises ``RunCancelled`` when it has come.

        A run that it turned out to be a duplicate of is not touched: it is somebody else's.

        Returns:
            True when Redis has taken note of it, False when the run is over already.

        Raises:
            RunNotFound: Redis does not know it (any more).
            QueueUnavailable: Redis refused or did not answer; cancelling once more does no harm.
        """
        queue = self._connection.queue
        keys = (queue, f"{queue}:leases", wire.ABORT_KEY)
        noted = await self._connection.run(CANCEL, keys, self.id, 1 if self._may_be_absent else 0)
        if noted < 0:
            self._raise_not_found(self.id)
        return bool(noted)

    async def _look(self, run_id: str, *, may_be_absent: bool) -> RunState | wire.WireResult:
        # In this order: a run that ends between the looks has left the queue and its result is seen.
        queued, in_progress, data = await self._connection.pipeline(
            ("ZSCORE", self._connection.queue, run_id),
            ("EXISTS", wire.IN_PROGRESS_KEY + run_id),
            ("GET", wire.RESULT_KEY + run_id),
        )
        if data is not None:
            return wire.read_result(data)
        if in_progress:
            return RunState.RUNNING
        if queued is None and not may_be_absent:
            self._raise_not_found(run_id)
        return RunState.WAITING

    async def _follow(self) -> RunState | wire.WireResult:
        """Look once, at this run or at the one that stands for it."""
        found = await self._look(self.id, may_be_absent=self._may_be_absent)
        for _ in range(MOST_FOLLOWED):
            if not isinstance(found, wire.WireResult) or found.duplicate_of is None:
                break
            self.followed_id = found.duplicate_of
            found = await self._look(self.followed_id, may_be_absent=True)
        return found

    async def _end_within(self, timeout_s: float | None) -> wire.WireResult:
        if timeout_s is not None and timeout_s <= 0:  # no call to Redis would come to its end in that time
            found = await self._follow()
            if isinstance(found, wire.WireResult):
                return found
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    return await self._end()
        raise TimeoutError(f"run {self.id} was not over within {timeout_s} s: it goes on, wait once more")

    async def _end(self) -> wire.WireResult:
        run_id, may_be_absent = self.id, self._may_be_absent
        for hop in range(MOST_FOLLOWED + 1):
            data = await self._watch.result(run_id, may_be_absent=may_be_absent)
            if data is None:
                self._raise_not_found(run_id)
            result = wire.read_result(data)
            if result.duplicate_of is None or hop == MOST_FOLLOWED:
                break
            # It was live a moment ago, so where Redis does not have it the ledger does.
            self.followed_id = run_id = result.duplicate_of
            may_be_absent = True
        return result

    def _raise_not_found(self, run_id: str) -> NoReturn:
        raise RunNotFound(
            f"run {run_id} is not in Redis: the id is wrong, or its result has expired there; "
            "`python -m worker runs show` looks into the ledger"
        )
