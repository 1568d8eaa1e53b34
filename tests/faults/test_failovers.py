"""A failover to a replica that lagged: it has claims of runs that are over, and has never heard of the latest ones."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from holdfast import wire
from tests import skips
from tests.faults.kinds import TrialWrite
from tests.faults.trial import QUICK, open_trial
from tests.queue.engine.proxy import Proxy
from tests.servers import RedisServer


@pytest.mark.parametrize("engine", ["sqlite_url", "postgres_url", "mariadb_url"])
async def test_a_replica_that_lagged_takes_over(
    engine: str, tmp_path: Path, pytestconfig: pytest.Config, request: pytest.FixtureRequest
) -> None:
    with (
        skips.made_or_skipped(RedisServer, pytestconfig) as primary,
        RedisServer() as replica,
        Proxy(primary.port) as proxy,
    ):
        async with open_trial(request.getfixturevalue(engine), proxy.url, tmp_path, **QUICK) as trial:
            (worker,) = await trial.started(MAX_JOBS="10")
            over_by_then = await trial.enqueue(TrialWrite(gate=trial.gate("first")) for _ in range(10))
            await trial.until_running(over_by_then, worker)
            later = await trial.enqueue(TrialWrite(gate=trial.gate("second")) for _ in range(10))
            await trial.send((TrialWrite() for _ in range(5)), at=datetime.now(UTC) + timedelta(seconds=3))

            async def all_in_redis() -> bool:
                return bool(trial.redis.zcard(wire.DEFAULT_QUEUE) == 25)

            await trial.until(all_in_redis, "all runs in Redis")
            await asyncio.to_thread(_replicate_until_now, primary, replica)
            trial.open_gate("first")
            await trial.until_over(over_by_then)
            await trial.until_running(later, worker)
            await trial.enqueue(TrialWrite() for _ in range(10))
            await trial.send(TrialWrite() for _ in range(5))

            primary.kill()
            proxy.switch(replica.port)
            trial.open_gate("second")
            findings = await trial.findings()

            assert findings.problems == []
            assert worker.alive


def _replicate_until_now(primary: RedisServer, replica: RedisServer) -> None:
    """Makes a replica, and a server of its own of it once it has everything: from now on it lags."""
    with redis.Redis.from_url(primary.url) as source, redis.Redis.from_url(replica.url) as copy:
        clients: tuple[Any, Any] = source, copy
        clients[1].replicaof("127.0.0.1", primary.port)
        while clients[1].info("replication")["master_link_status"] != "up":
            pass
        assert clients[0].wait(1, 10_000) == 1
        assert clients[1].zcard(wire.DEFAULT_QUEUE) == clients[0].zcard(wire.DEFAULT_QUEUE)
        clients[1].replicaof("NO", "ONE")
