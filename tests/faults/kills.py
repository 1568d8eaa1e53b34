"""The worker is killed at random moments of one import, and started again each time."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from holdfast.states import RunState
from tests.faults.checker import Verdict, judge
from tests.faults.place import Place
from tests.faults.task_files import TaskFile
from tests.faults.watch import Sample, Watch
from tests.processes import WorkerProcess
from worker.ledger import SUSPECT_AFTER

MARGIN_ROWS = 5_000
"""So many rows before the end no kill is planned any more: the run could be over before it lands."""
LONGEST_DELAY_S = 0.1
"""About the time of a batch or two, so that every point of a batch is hit."""


@dataclass(frozen=True)
class KillTrial:
    """What came of it."""

    landed: int
    """Kills that hit a worker which had the run."""
    seconds: float
    verdict: Verdict


@dataclass(frozen=True)
class Moment:
    """When one kill happens: once so many rows are committed, and so many seconds later."""

    rows_read: int
    delay_s: float


def draw_moments(rng: random.Random, kills: int, rows: int, *, margin_rows: int = MARGIN_ROWS) -> list[Moment]:
    """Draws the moments in their order; the same generator draws the same ones."""
    targets = sorted(int(rng.uniform(0, max(0, rows - margin_rows))) for _ in range(kills))
    return [Moment(target, rng.uniform(0, LONGEST_DELAY_S)) for target in targets]


async def kill_and_restart(place: Place, file: TaskFile, moments: Sequence[Moment], *, batch_rows: int) -> KillTrial:
    """Imports a file while its worker is killed at each of the moments, and judges the end."""
    began = time.monotonic()
    async with place.watched() as watch:
        run_id = await place.enqueue(watch, file.request(batch_rows=batch_rows))
        landed = await kill_through(place, watch, run_id, moments)
        return KillTrial(landed, time.monotonic() - began, await judge(watch, run_id, file, crashes=landed))


async def kill_through(
    place: Place, watch: Watch, run_id: UUID, moments: Sequence[Moment], *, counter: str = "rows_read"
) -> int:
    """Kills the worker of a run at each of the moments, and lets the last one end it; returns how many kills hit.

    Args:
        place: where the workers work.
        watch: an eye on the run.
        run_id: the run.
        moments: in their order.
        counter: the run's counter that the moments are told in.
    """
    landed, fence = 0, 0
    for number, moment in enumerate(moments):
        with place.worker(f"worker-{number}") as worker:
            seen = await _await_moment(watch, run_id, worker, moment, after_fence=fence, counter=counter)
            worker.kill()
        left = await watch.look(run_id)
        assert left is not None
        if left.state.is_over:
            break  # on a busy machine a kill may come too late; `landed` tells
        landed += 1
        fence = max(seen.fence, left.fence)
    with place.worker("worker-last") as worker:
        await watch.until_over(run_id, worker=worker)
        await asyncio.to_thread(worker.wait_for, "worker started")
        code = worker.terminate()
    assert code == 0, f"the worker ended with exit code {code} and printed:\n{worker.text}"
    return landed


async def _await_moment(
    watch: Watch, run_id: UUID, worker: WorkerProcess, moment: Moment, *, after_fence: int, counter: str
) -> Sample:
    def has_come(sample: Sample) -> bool:
        # A new fence: this worker, not the one before it, has the run. A suspect may go on to its next batch first: a
        # third death without one would rightly quarantine it.
        has_it = sample.state is RunState.RUNNING and sample.fence > after_fence
        return has_it and sample.counters.get(counter, 0) >= moment.rows_read and sample.crashes < SUSPECT_AFTER

    seen = await watch.until(run_id, has_come, worker=worker)
    await asyncio.sleep(moment.delay_s)
    return seen
