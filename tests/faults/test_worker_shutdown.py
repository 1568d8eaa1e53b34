"""A deploy: SIGTERM with runs of a single try (FAULTS, row 4), and at the worst moment of an end."""

import asyncio
from uuid import UUID

from db.repositories import job_run
from db.run_sessions import run_name
from holdfast.states import RunState
from tests.faults.deploys import deploy, terminate
from tests.faults.kinds import TrialWrite
from tests.faults.locks import backends_of, count_waiting
from tests.faults.trial import Trial

GRACE_S = 3.0
CANCELLED_S = 0.3


async def test_a_deploy_loses_nothing_and_charges_nothing(trial: Trial) -> None:
    await deploy(trial, GRACE_S)
    findings = await trial.findings()

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
        ending = asyncio.create_task(asyncio.to_thread(terminate, worker))
        await trial.pause(CANCELLED_S)  # nothing tells that the run was cancelled
    await ending
    (run,) = await trial.runs()

    assert run.state == RunState.SUCCEEDED
    assert "run succeeded" in worker.text
    assert (await trial.findings()).problems == []
