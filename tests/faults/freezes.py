"""A worker that stands still for longer than its lease, and wakes when others have its runs."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from holdfast import JobRequest
from tests.faults.kinds import TrialCopy, TrialWrite
from tests.faults.locks import is_locked
from tests.faults.trial import Trial
from tests.processes import WorkerProcess

SOON_S = 15.0
FOR_EVER_S = 600.0


async def freeze_one_of_two(trial: Trial, runs: int = 1) -> float:
    """Freezes a worker with runs that wait between their batches, inside one and inside COPY, and wakes it afterwards.

    Args:
        trial: whose workers they are.
        runs: how many wait between two batches.

    Returns:
        Seconds until all of them had started in the other worker and were over.
    """
    waits_between = [TrialWrite(steps=3, pause_s=FOR_EVER_S, slow_starts=1) for _ in range(runs)]
    waits_inside: list[JobRequest[Any]] = []
    if trial.engine != "sqlite":
        # The sleeper's session keeps the run's row locked: whoever takes the run over has to end it first.
        waits_inside.append(TrialWrite(steps=3, hold_s=FOR_EVER_S, slow_starts=1))
    if trial.engine == "postgresql":
        waits_inside.append(TrialCopy(seconds=FOR_EVER_S))
    slots = {"MAX_JOBS": str(runs + 2)}
    (sleeper,) = await trial.started(**slots)
    between, inside = await trial.enqueue(waits_between), await trial.enqueue(waits_inside)
    await trial.until_running(between, sleeper)
    await _until_locked(trial, inside)
    (taker,) = await trial.started(**slots)

    sleeper.pause()
    over_s = await trial.until_over(within_s=SOON_S)
    sleeper.resume()
    await until_told_off(trial, sleeper, [*between, *inside])
    assert {run.fence for run in await trial.runs()} == {2}
    assert [sleeper.alive, taker.alive] == [True, True]
    return over_s


async def _until_locked(trial: Trial, run_ids: Sequence[str]) -> None:
    async def all_locked() -> bool:
        locked = [await is_locked(trial.manager, UUID(run_id)) for run_id in run_ids]
        return all(locked)

    await trial.until(all_locked, "a batch of each")


async def until_told_off(trial: Trial, sleeper: WorkerProcess, run_ids: Sequence[str]) -> None:
    """Returns when a worker that has slept has said that it lost these runs."""

    async def told_off() -> bool:
        lines = "\n".join(line for line in sleeper.text.splitlines() if "run lost" in line)
        return all(run_id in lines for run_id in run_ids)

    await trial.until(told_off, "that the sleeper gives up its runs")
