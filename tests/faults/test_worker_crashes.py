"""Whole workers that are killed: their runs go on elsewhere, and cost no try. `make faults` is the long form."""

import random
import secrets

from tests.faults.crashes import kill_all_again_and_again, kill_one_of_two, run_poison_among_innocents
from tests.faults.trial import Trial
from worker.ledger import SUSPECT_AFTER


async def test_runs_of_a_killed_worker_run_again_and_a_fresh_one_does_not_wait_for_them(trial: Trial) -> None:
    await kill_one_of_two(trial, 100)
    findings = await trial.findings()

    assert findings.problems == []
    assert trial.workers[-1].alive


async def test_runs_survive_any_number_of_dead_workers(trial: Trial) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    kills = 6 if trial.engine == "postgresql" else 3

    hit = await kill_all_again_and_again(trial, 100, kills, random.Random(seed))  # noqa: S311 - no secret
    findings = await trial.findings()

    assert findings.problems == []
    assert hit >= kills


async def test_a_run_that_kills_its_worker_is_quarantined_and_no_other(trial: Trial) -> None:
    deaths = await run_poison_among_innocents(trial, 10)
    findings = await trial.findings()

    assert findings.problems == []
    assert deaths == SUSPECT_AFTER + 1
