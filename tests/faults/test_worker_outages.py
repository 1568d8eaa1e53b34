"""Redis is killed, emptied or replaced under whole workers. `make faults` is the long form."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests import skips
from tests.faults.outages import flush_redis, restart_redis
from tests.faults.trial import QUICK, Trial, open_trial
from tests.servers import RedisServer

Durability = Literal["no", "everysec", "always"]


@pytest.fixture
def durability() -> Durability:
    return "no"


@pytest.fixture
def own_redis(durability: Durability, pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    with skips.made_or_skipped(lambda: RedisServer(appendonly=durability), pytestconfig) as server:
        yield server


@pytest.mark.parametrize(
    ("engine", "durability", "down_s"),
    [("sqlite_url", "no", 2.0), ("postgres_url", "everysec", 0.3), ("mariadb_url", "always", 2.0)],
)
async def test_redis_is_killed_and_restarted(
    engine: str, down_s: float, own_redis: RedisServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with open_trial(request.getfixturevalue(engine), own_redis.url, tmp_path, **QUICK) as trial:
        await restart_redis(trial, own_redis, down_s)
        findings = await trial.findings()

        assert findings.problems == []


async def test_redis_is_emptied(trial: Trial) -> None:
    await flush_redis(trial, waiting=200, running=20)
    findings = await trial.findings()

    assert findings.problems == []
