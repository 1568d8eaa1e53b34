"""Whole workers that stand still: frozen for longer than their lease, or with a job that blocks the event loop."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from holdfast import JobRequest
from tests.faults.kinds import TrialBlock, TrialCopy, TrialWrite
from tests.faults.locks import is_locked
from tests.faults.trial import Trial
from tests.processes import WorkerProcess

SOON_S = 15.0
FOR_EVER_S = 600.0
BLIND_MS = 1000
LONG_S = 3.0
"""Twice the time after which a silent worker counts as dead."""


async def test_runs_of_a_frozen_worker_go_over_and_it_changes_nothing_when_it_wakes(trial: Trial) -> None:
    waits_between: list[JobRequest[Any]] = [TrialWrite(steps=3, pause_s=FOR_EVER_S, slow_starts=1)]
    waits_inside: list[JobRequest[Any]] = []
    if trial.engine != "sqlite":
        # The sleeper's session keeps the run's row locked: whoever takes the run over has to end it first.
        waits_inside.append(TrialWrite(steps=3, hold_s=FOR_EVER_S, slow_starts=1))
    if trial.engine == "postgresql":
        waits_inside.append(TrialCopy(seconds=FOR_EVER_S))
    (sleeper,) = await trial.started()
    between, inside = await trial.enqueue(waits_between), await trial.enqueue(waits_inside)
    await trial.until_running(between, sleeper)
    await _until_locked(trial, inside)
    (taker,) = await trial.started()

    sleeper.pause()
    await trial.until_over(within_s=SOON_S)
    sleeper.resume()
    await _until_told_off(trial, sleeper, [*between, *inside])
    findings = await trial.findings()

    assert findings.problems == []
    assert sleeper.alive
    assert taker.alive


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
    await _until_told_off(trial, sleeper, run_ids)
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


async def _until_locked(trial: Trial, run_ids: Sequence[str]) -> None:
    async def all_locked() -> bool:
        locked = [await is_locked(trial.manager, UUID(run_id)) for run_id in run_ids]
        return all(locked)

    await trial.until(all_locked, "a batch of each")


async def _until_told_off(trial: Trial, sleeper: WorkerProcess, run_ids: Sequence[str]) -> None:
    async def told_off() -> bool:
        lines = [line for line in sleeper.text.splitlines() if "run lost" in line]
        return all(any(run_id in line for line in lines) for run_id in run_ids)

    await trial.until(told_off, "that the sleeper gives up its runs")
