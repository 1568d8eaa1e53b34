"""Workers, producers and Redis's troubles once more, with the users of `deploy/redis-users.acl` and no others."""

from pathlib import Path

import pytest

from holdfast import Client
from tests.faults.crashes import kill_one_of_two
from tests.faults.history import Expected
from tests.faults.kinds import TrialWrite
from tests.faults.outages import flush_redis
from tests.faults.trial import QUICK, open_trial
from tests.guarded_redis import denied, guarded_redis, url_of


@pytest.mark.parametrize("engine", ["sqlite_url", "postgres_url", "mariadb_url"])
async def test_crashes_and_a_flush_are_survived_by_users_who_may_do_their_work_only(
    engine: str, tmp_path: Path, pytestconfig: pytest.Config, request: pytest.FixtureRequest
) -> None:
    with guarded_redis(tmp_path, pytestconfig) as server:
        async with open_trial(request.getfixturevalue(engine), url_of(server, "admin"), tmp_path, **QUICK) as trial:
            trial.environment["REDIS_URL"] = url_of(server, "worker")
            await kill_one_of_two(trial, 10)
            async with Client(url_of(server, "producer")) as client:
                run = await client.enqueue(TrialWrite(steps=2))
                trial.asked.acknowledged[run.id].append(Expected(2))
                await run.result(timeout_s=60)
            trial.workers[-1].terminate()
            await flush_redis(trial, waiting=50, running=5, gate="second gate")
            findings = await trial.findings()

            assert findings.problems == []
            assert denied(trial.redis) == []
