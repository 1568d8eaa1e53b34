"""A deploy: SIGTERM with runs that end in the time of grace, that stop at their next batch, and that do neither."""

import asyncio
import time

from holdfast.states import RunState
from tests.faults.kinds import TrialOnce
from tests.faults.trial import Trial
from tests.processes import WorkerProcess

MARGIN_S = 2.0
ITS_END_S = 1.0
"""What Python takes to end, and this machine to tell."""
SHORT_S = 0.3
FOR_EVER_S = 600.0
STEPS = 200


async def deploy(trial: Trial, grace_s: float, walking_runs: int = 3) -> float:
    """Ends a worker by SIGTERM while runs of a kind with a single try run; another one goes on with them.

    Args:
        trial: whose workers they are.
        grace_s: seconds that the runs have to end.
        walking_runs: how many walk in small steps, and as many end within the time of grace.

    Returns:
        Seconds until the worker had ended.
    """
    (first,) = await trial.started(SHUTDOWN_GRACE_S=str(grace_s), MAX_JOBS=str(2 * walking_runs + 2))
    walking = await trial.enqueue(TrialOnce(steps=STEPS, pause_s=0.1, slow_starts=1) for _ in range(walking_runs))
    deaf = [TrialOnce(steps=2, pause_s=FOR_EVER_S, slow_starts=1)]
    if trial.engine != "sqlite":  # there nobody else could write meanwhile
        deaf.append(TrialOnce(steps=2, hold_s=FOR_EVER_S, slow_starts=1))
    unheeding = await trial.enqueue(deaf)
    await trial.until_running([*walking, *unheeding], first)

    async def on_their_way() -> bool:
        return all(run.cursor for run in await trial.runs() if run.job_id in walking)

    await trial.until(on_their_way, "the first batch of each")
    begun = trial.folder / "begun"
    begun.mkdir()
    short = await trial.enqueue(TrialOnce(pause_s=SHORT_S, begun=str(begun)) for _ in range(walking_runs))

    async def have_begun() -> bool:  # the ledger says so a moment before
        return {path.name for path in begun.iterdir()} == set(short)

    await trial.until(have_begun, "the beginning of the short ones")
    took_s = await asyncio.to_thread(terminate, first)
    assert took_s < grace_s + MARGIN_S + ITS_END_S, f"it took {took_s:.1f} s"
    runs = {run.job_id: run for run in await trial.runs()}
    assert {runs[run_id].state for run_id in short} == {RunState.SUCCEEDED}
    for run_id in [*walking, *unheeding]:
        run = runs[run_id]
        left = (run.state, run.reason, run.attempts, run.crashes)
        assert left == ("waiting", "interrupted", 0, 0), f"{run_id}: {left}"
    assert all(1 <= runs[run_id].cursor["step"] < STEPS for run_id in walking), "a checkpoint of each is kept"
    await trial.started()
    return took_s


def terminate(worker: WorkerProcess) -> float:
    """Ends a worker by SIGTERM; returns the seconds that it took."""
    began = time.monotonic()
    assert worker.terminate() == 0, worker.text
    return time.monotonic() - began
