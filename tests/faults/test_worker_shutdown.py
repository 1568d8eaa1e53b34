"""A deploy: SIGTERM with runs that end in the time of grace, that stop at their next batch, and that do neither."""

import asyncio
import time
from uuid import UUID

from db.repositories import job_run
from db.run_sessions import run_name
from holdfast.states import RunState
from tests.faults.kinds import TrialOnce, TrialWrite
from tests.faults.locks import backends_of, count_waiting
from tests.faults.trial import Trial
from tests.processes import WorkerProcess

GRACE_S = 3.0
MARGIN_S = 2.0
ITS_END_S = 1.0
"""What Python takes to end, and this machine to tell."""
SHORT_S = 0.3
FOR_EVER_S = 600.0
CANCELLED_S = 0.3


async def test_a_deploy_loses_nothing_and_charges_nothing(trial: Trial) -> None:
    (first,) = await trial.started(SHUTDOWN_GRACE_S=str(GRACE_S))
    walking = await trial.enqueue(TrialOnce(steps=200, pause_s=0.1, slow_starts=1) for _ in range(3))
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
    short = await trial.enqueue(TrialOnce(pause_s=SHORT_S, begun=str(begun)) for _ in range(3))

    async def have_begun() -> bool:  # the ledger says so a moment before
        return {path.name for path in begun.iterdir()} == set(short)

    await trial.until(have_begun, "the beginning of the short ones")
    took_s = await asyncio.to_thread(_terminate, first)
    runs = {run.job_id: run for run in await trial.runs()}
    await trial.started()
    findings = await trial.findings()

    assert took_s < GRACE_S + MARGIN_S + ITS_END_S
    assert {runs[run_id].state for run_id in short} == {RunState.SUCCEEDED}
    for run_id in [*walking, *unheeding]:
        run = runs[run_id]
        assert (run.state, run.reason, run.attempts, run.crashes) == ("waiting", "interrupted", 0, 0)
    assert all(1 <= runs[run_id].cursor["step"] < 200 for run_id in walking)
    assert findings.problems == []


async def test_an_end_that_is_being_recorded_when_the_grace_is_over_is_recorded(postgres_trial: Trial) -> None:
    trial = postgres_trial
    (worker,) = await trial.started(SHUTDOWN_GRACE_S="0")
    (run_id,) = await trial.enqueue([TrialWrite(hold_s=0.5)])

    async def in_its_batch() -> bool:
        return bool(await backends_of(trial.manager, run_name(UUID(run_id), 1)))

    async def being_recorded() -> bool:
        return await count_waiting(trial.manager) == 1

    await trial.until(in_its_batch, "the batch")
    async with trial.manager.session() as session:
        # This waits for the end of the batch, and then the worker waits for this.
        await job_run.get_run(session, UUID(run_id), lock=True)
        await trial.until(being_recorded, "the end that is to be recorded")
        ending = asyncio.create_task(asyncio.to_thread(_terminate, worker))
        await trial.pause(CANCELLED_S)  # nothing tells that the run was cancelled
    await ending
    (run,) = await trial.runs()

    assert run.state == RunState.SUCCEEDED
    assert "run succeeded" in worker.text
    assert (await trial.findings()).problems == []


def _terminate(worker: WorkerProcess) -> float:
    began = time.monotonic()
    assert worker.terminate() == 0, worker.text
    return time.monotonic() - began
