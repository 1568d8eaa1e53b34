"""A handle to one run: its state, its progress, its report."""

import asyncio
import time
from typing import Generic, NoReturn

from pydantic import ValidationError

from holdfast import wire
from holdfast.connection import QueueConnection
from holdfast.errors import RunCancelled, RunFailed, RunNotFound, WireFormatError
from holdfast.progress import Progress
from holdfast.requests import ReportT
from holdfast.states import RunState

FIRST_POLL_S = 0.02
SLOWEST_POLL_S = 0.25
VANISHED_GRACE_S = 60.0
"""A run that Redis knew and lost is put back by the workers' reconciliation; so long a waiting handle gives them."""


class Run(Generic[ReportT]):
    """A handle to one run."""

    def __init__(self, connection: QueueConnection, run_id: str, report_type: type[ReportT]) -> None:
        self.id = run_id
        self._connection = connection
        self._report_type = report_type

    async def status(self) -> RunState:
        """Return the run's state as Redis knows it.

        Raises:
            RunNotFound: Redis does not know it (any more).
            QueueUnavailable: Redis did not answer.
        """
        result = await self._result()
        if result is not None:
            return result.state
        if await self._connection.call("EXISTS", wire.IN_PROGRESS_KEY + self.id):
            return RunState.RUNNING
        if await self._connection.call("ZSCORE", self._connection.queue, self.id) is not None:
            return RunState.WAITING
        result = await self._result()  # it may have ended between the looks
        return self._raise_not_found() if result is None else result.state

    async def progress(self) -> Progress | None:
        """Return how far the run has come, or None when it has not said so yet (or its result has expired).

        Raises:
            WireFormatError: what Redis holds is no progress.
            QueueUnavailable: Redis did not answer.
        """
        data = await self._connection.call("GET", wire.PROGRESS_KEY + self.id)
        if data is None:
            return None
        try:
            return Progress.model_validate(wire.loads(data))
        except ValidationError as error:
            raise WireFormatError(f"progress of run {self.id}: {error.errors()[0]['msg']}") from None

    async def result(self, *, timeout_s: float | None = None) -> ReportT:
        """Wait until the run is over and return its report.

        Args:
            timeout_s: how long to wait, in seconds; for ever if not given.

        Raises:
            RunFailed: the run is over without a report (``RunCancelled`` when it was cancelled).
            RunNotFound: Redis does not know the run.
            TimeoutError: it was not over in time; it goes on.
            QueueUnavailable: Redis did not answer.
            WireFormatError: the report does not fit its type.
        """
        async with asyncio.timeout(timeout_s):
            result = await self._wait()
        if not result.succeeded:
            error = RunCancelled if result.state is RunState.CANCELLED else RunFailed
            raise error(self.id, result.error_type, result.message)
        try:
            return self._report_type.model_validate(result.report)
        except ValidationError as invalid:
            raise WireFormatError(f"report of run {self.id}: {invalid.errors()[0]['msg']}") from None

    async def _wait(self) -> wire.WireResult:
        pause_s, known, missing_since = FIRST_POLL_S, False, time.monotonic()
        while True:
            result = await self._result()
            if result is not None:
                return result
            now = time.monotonic()
            if await self._connection.call("ZSCORE", self._connection.queue, self.id) is not None:
                known, missing_since = True, now
            elif now - missing_since >= (VANISHED_GRACE_S if known else FIRST_POLL_S):
                # Once more: it may have ended between the two looks.
                return await self._result() or self._raise_not_found()
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 1.5, SLOWEST_POLL_S)

    async def _result(self) -> wire.WireResult | None:
        data = await self._connection.call("GET", wire.RESULT_KEY + self.id)
        return None if data is None else wire.read_result(data)

    def _raise_not_found(self) -> NoReturn:
        raise RunNotFound(
            f"run {self.id} is not in Redis: the id is wrong, or its result has expired there; "
            "`python -m worker runs show` looks into the ledger"
        )
