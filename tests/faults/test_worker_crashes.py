"""Whole workers that are killed: their runs go on elsewhere, and cost no try."""

from tests.faults.kinds import TrialWrite
from tests.faults.trial import Trial

SOON_S = 15.0
AT_ONCE_S = 2.0


async def test_the_runs_of_a_killed_worker_run_again_and_nothing_fresh_waits_for_them(trial: Trial) -> None:
    many = {"MAX_JOBS": "100"}
    (dies,) = await trial.started(**many)
    orphans = await trial.enqueue(TrialWrite(gate=trial.gate()) for _ in range(100))
    await trial.until_running(orphans, dies)
    (lives,) = await trial.started(**many)

    dies.kill()
    (fresh,) = await trial.enqueue([TrialWrite()])
    await trial.until_over([fresh], within_s=AT_ONCE_S)
    await trial.until_running(orphans, lives, within_s=SOON_S)
    trial.open_gate()
    findings = await trial.findings()

    assert findings.problems == []
    assert lives.alive
