"""Kills, pauses, flushes, restarts and lost sessions, mixed from a seed. `make faults` does it for longer."""

import secrets
from pathlib import Path

import pytest

from tests import skips
from tests.faults.nemesis import Nemesis
from tests.faults.trial import QUICK, open_trial
from tests.servers import RedisServer

DURATION_S = 10.0
PATIENCE_S = 90.0


async def test_nothing_is_lost_or_doubled(postgres_url: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")  # pytest shows it when the test fails
    with skips.made_or_skipped(RedisServer, pytestconfig) as server:
        async with open_trial(postgres_url, server.url, tmp_path, **QUICK) as trial:
            nemesis = Nemesis(trial, server, seed)
            await nemesis.run(DURATION_S)
            findings = await trial.findings(within_s=PATIENCE_S)
            print(dict(nemesis.deeds))

            assert findings.problems == []
