"""The outbox under kill -9: of its producers and of the workers that dispatch. `make faults` is the long form."""

import random
import secrets

import pytest

from tests.faults.producers import kill_dispatchers, kill_producers
from tests.faults.trial import Trial


@pytest.fixture
def rng() -> random.Random:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    return random.Random(seed)  # noqa: S311 - no secret


async def test_orders_of_killed_producers_are_their_runs(trial: Trial, rng: random.Random) -> None:
    ordered = await kill_producers(trial, 4, rng)
    await trial.started(MAX_JOBS="50")
    findings = await trial.findings()

    assert findings.problems == []
    assert ordered > 0


async def test_runs_of_killed_dispatchers_take_effect_once(trial: Trial, rng: random.Random) -> None:
    dispatched = await kill_dispatchers(trial, 3, 100, rng)
    await trial.started(MAX_JOBS="50")
    findings = await trial.findings()

    assert findings.problems == []
    assert dispatched > 0
