"""Whole workers that stand still: frozen for longer than their lease, or with a job that blocks the event loop."""

import asyncio
from uuid import UUID

from tests.faults.freezes import SOON_S, freeze_one_of_two, until_told_off
from tests.faults.kinds import TrialBlock, TrialWrite
from tests.faults.locks import is_locked
from tests.faults.trial import Trial

BLIND_MS = 1000
LONG_S = 3.0
"""Twice the time after which a silent worker counts as dead."""


async def test_runs_of_a_frozen_worker_go_over_and_it_changes_nothing_when_it_wakes(trial: Trial) -> None:
    await freeze_one_of_two(trial)
    findings = await trial.findings()

    assert findings.problems == []


async def test_a_sleeper_that_wakes_while_another_runs_ends_nothing(trial: Trial) -> None:
    (sleeper,) = await trial.started()
    run_ids = await trial.enqueue(TrialWrite(steps=3, gate=trial.gate()) for _ in range(10))
    await trial.until_running(run_ids, sleeper)
    (taker,) = await trial.started()

    sleeper.pause()
    await trial.until_running(run_ids, taker, within_s=SOON_S)
    # Redis would tell it that others have its runs: now only the fence does.
    trial.redis.execute_command("CLIENT", "PAUSE", BLIND_MS, "ALL")
    trial.open_gate()
    sleeper.resume()  # both find the gate open at the same moment
    await until_told_off(trial, sleeper, run_ids)
    findings = await trial.findings()

    assert findings.problems == []
    assert {run.worker_id.split(":")[1] for run in await trial.runs()} == {str(taker.pid)}


async def test_sqlite_waits_for_a_worker_that_is_frozen_while_it_writes(sqlite_trial: Trial) -> None:
    """Nobody can end the transaction of another process there: all writing waits until it wakes or dies."""
    trial = sqlite_trial
    (sleeper,) = await trial.started()
    (run_id,) = await trial.enqueue([TrialWrite(steps=20, pause_s=0.05, hold_s=0.1)])
    await trial.until_running([run_id], sleeper)
    while True:
        sleeper.pause()
        if await is_locked(trial.manager, UUID(run_id)):
            break
        sleeper.resume()
        assert await trial.running(), "the run was over before the worker could be frozen"
    other = trial.worker()  # it cannot even say that it is there

    await trial.pause(LONG_S)
    assert await trial.running(sleeper) == {run_id}
    assert "worker started" not in other.text
    sleeper.resume()
    findings = await trial.findings()
    await asyncio.to_thread(other.wait_for, "worker started")

    assert findings.problems == []


async def test_a_job_that_blocks_its_worker_runs_once_and_is_named(trial: Trial) -> None:
    (blocked,) = await trial.started()
    culprit, neighbour = await trial.enqueue([TrialBlock(seconds=LONG_S), TrialWrite(steps=5, pause_s=0.05)])
    await trial.until_running([culprit], blocked)
    (idle,) = await trial.started()
    await asyncio.to_thread(blocked.wait_for, f"job {culprit}:{TrialBlock.kind} has blocked the event loop")
    (fresh,) = await trial.enqueue([TrialWrite()])
    await trial.until_over([fresh], within_s=LONG_S)
    findings = await trial.findings()
    fences = {run.job_id: run.fence for run in await trial.runs()}

    assert findings.problems == []
    assert fences == {culprit: 1, neighbour: 1, fresh: 1}
    assert blocked.alive
    assert idle.alive
