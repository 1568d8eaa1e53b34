"""Workers are killed: one of two, and all of them again and again."""

import random

from holdfast.states import LIVE_STATES, RunState
from tests.faults.kinds import TrialPoison, TrialWrite
from tests.faults.trial import END_LOOK_S, Trial
from worker.ledger import SUSPECT_AFTER

SOON_S = 15.0
AT_ONCE_S = 6.0
"""Thrice what is promised: the machine may be busy."""


async def kill_one_of_two(trial: Trial, runs: int) -> tuple[float, float]:
    """Kills a worker with so many runs; they start again in another one, and a fresh run does not wait for them.

    Returns:
        Seconds until a fresh run was over, and until all were running again.
    """
    (dies,) = await trial.started(MAX_JOBS=str(runs))
    orphans = await trial.enqueue(TrialWrite(gate=trial.gate()) for _ in range(runs))
    await trial.until_running(orphans, dies)
    (lives,) = await trial.started(MAX_JOBS=str(runs + 1))
    dies.kill()
    (fresh,) = await trial.enqueue([TrialWrite()])
    fresh_s = await trial.until_over([fresh], within_s=AT_ONCE_S)
    again_s = fresh_s + await trial.until_running(orphans, lives, within_s=SOON_S)
    trial.open_gate()
    return fresh_s, again_s


async def kill_all_again_and_again(trial: Trial, runs: int, kills: int, rng: random.Random) -> int:
    """Kills all workers so often; returns how many runs were under way at these moments."""
    await trial.enqueue(TrialWrite(steps=kills + 1, pause_s=0.2) for _ in range(runs))
    hit = 0
    for _ in range(kills):
        workers = [trial.worker(MAX_JOBS=str(runs // 2)) for _ in range(2)]
        after_s = rng.uniform(0.0, 0.5)

        async def under_way() -> bool:
            # A suspect may first go on to its next batch: its third death without one would be taken for its own deed.
            live = await trial.runs(*LIVE_STATES)
            return all(run.crashes < SUSPECT_AFTER for run in live) and bool(await trial.running())

        await trial.until(under_way, "runs under way, none of them a suspect", look_s=END_LOOK_S)
        await trial.pause(after_s)
        hit += len(await trial.running())
        for worker in workers:
            worker.kill()
    for _ in range(2):
        trial.worker(MAX_JOBS=str(runs // 2))
    return hit


async def run_poison_among_innocents(trial: Trial, innocents: int) -> int:
    """Runs a job that kills its worker each time, beside others that make no progress meanwhile; returns its deaths."""
    (poison,) = await trial.enqueue([TrialPoison(after_s=0.1)])
    await trial.enqueue(TrialWrite(pause_s=0.3) for _ in range(innocents))
    deaths = 0
    worker = trial.worker()

    async def dead_or_over() -> bool:
        return not worker.alive or not await trial.runs(*LIVE_STATES)

    while True:
        await trial.until(dead_or_over, "the worker's death, or the end of all runs", look_s=END_LOOK_S)
        if worker.alive:
            break
        deaths += 1
        worker = trial.worker()
    (run,) = [run for run in await trial.runs(RunState.QUARANTINED) if run.job_id == poison]
    assert "it ran alone" in run.error["message"], run.error
    return deaths
