"""An eye on a run's row in the ledger, over connections that the workers do not know of."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from db.connection import DatabaseManager
from db.errors import is_transient
from db.repositories import job_run
from db.repositories.job_run import RunRow
from holdfast.states import RunState
from tests.processes import WorkerProcess

POLL_S = 0.01
END_POLL_S = 0.05
"""While nothing is left but to wait for the end: each look takes time from the workers."""
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Sample:
    """What the ledger said at one moment."""

    state: RunState
    fence: int
    crashes: int
    worker_id: str | None
    counters: dict[str, int]

    @property
    def rows_read(self) -> int:
        """The rows whose batches are committed."""
        return self.counters.get("rows_read", 0)


class Watch:
    """Looks at the ledger and remembers every change that it saw, for the checker."""

    def __init__(self, manager: DatabaseManager) -> None:
        self.manager = manager
        self.history: list[Sample] = []

    async def run(self, run_id: UUID) -> RunRow | None:
        """Returns the run's row; None when it is not in the ledger (yet)."""
        async with self.manager.session(read_only=True) as session:
            return await job_run.get_run(session, run_id)

    async def look(self, run_id: UUID) -> Sample | None:
        """Returns the run's present state; None when the ledger does not have it or is out of reach."""
        try:
            row = await self.run(run_id)
        except Exception as error:
            if not is_transient(error):
                raise
            return None
        if row is None:
            return None
        sample = Sample(RunState(row.state), row.fence, row.crashes, row.worker_id, dict(row.counters or {}))
        if not self.history or self.history[-1] != sample:
            self.history.append(sample)
        return sample

    async def until(
        self,
        run_id: UUID,
        condition: Callable[[Sample], bool],
        *,
        worker: WorkerProcess | None = None,
        timeout_s: float = PATIENCE_S,
        poll_s: float = POLL_S,
    ) -> Sample:
        """Looks until the condition holds or the run is over; returns what was seen then.

        Args:
            run_id: the run.
            condition: what is waited for.
            worker: without which nothing will happen any more.
            timeout_s: seconds after which it is given up.
            poll_s: seconds between two looks.

        Raises:
            AssertionError: it did not come to pass.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            lived = worker is None or worker.alive
            sample = await self.look(run_id)
            if sample is not None and (condition(sample) or sample.state.is_over):
                return sample
            assert lived, f"the worker has ended; the run stands at {sample}; {_last_words(worker)}"
            in_time = time.monotonic() < deadline
            assert in_time, f"after {timeout_s} s the run stands at {sample}; {_last_words(worker)}"
            await asyncio.sleep(poll_s)

    async def until_over(
        self, run_id: UUID, *, worker: WorkerProcess | None = None, timeout_s: float = PATIENCE_S
    ) -> Sample:
        """Looks until the run is over, as `until`."""
        return await self.until(run_id, lambda sample: False, worker=worker, timeout_s=timeout_s, poll_s=END_POLL_S)


def _last_words(worker: WorkerProcess | None) -> str:
    return "" if worker is None else f"the worker has printed:\n{worker.text}"
