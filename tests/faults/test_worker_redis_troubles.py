"""A Redis that lives and is no use, under a whole worker: what is over in the ledger is not run again."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from holdfast import wire
from tests import skips
from tests.faults.kinds import TrialWrite
from tests.faults.trial import QUICK, Trial, open_trial
from tests.queue.engine.proxy import Proxy
from tests.servers import RedisServer, free_port

PAUSE_MS = 5000
SOON_S = 15.0
LONGER_THAN_A_LEASE_S = 1.5


@pytest.fixture
def redis_of_its_own(pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    with skips.made_or_skipped(RedisServer, pytestconfig) as server:
        yield server


@asynccontextmanager
async def cut_again_and_again(trial: Trial, proxy: Proxy) -> AsyncIterator[None]:
    del proxy
    for _ in range(5):
        for kind in ("normal", "pubsub"):
            trial.redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        await asyncio.sleep(0.05)
    yield
    for kind in ("normal", "pubsub"):
        trial.redis.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


@asynccontextmanager
async def paused(trial: Trial, proxy: Proxy) -> AsyncIterator[None]:
    del proxy
    trial.redis.execute_command("CLIENT", "PAUSE", PAUSE_MS, "ALL")
    yield


@asynccontextmanager
async def full(trial: Trial, proxy: Proxy) -> AsyncIterator[None]:
    del proxy
    trial.redis.config_set("maxmemory", 1)
    yield
    await asyncio.sleep(LONGER_THAN_A_LEASE_S)
    trial.redis.config_set("maxmemory", 0)


@asynccontextmanager
async def read_only(trial: Trial, proxy: Proxy) -> AsyncIterator[None]:
    del proxy
    trial.redis.replicaof("127.0.0.1", free_port())
    yield
    await asyncio.sleep(LONGER_THAN_A_LEASE_S)
    trial.redis.replicaof("NO", "ONE")


@asynccontextmanager
async def slow(trial: Trial, proxy: Proxy) -> AsyncIterator[None]:
    del trial
    proxy.delay_s = 0.1
    yield


@asynccontextmanager
async def half_open(trial: Trial, proxy: Proxy) -> AsyncIterator[None]:
    del trial
    assert proxy.swallow() >= 4
    yield


Trouble = Callable[[Trial, Proxy], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize(
    ("trouble", "engine"),
    [
        (cut_again_and_again, "sqlite_url"),
        (paused, "postgres_url"),
        (full, "mariadb_url"),
        (read_only, "postgres_url"),
        (slow, "sqlite_url"),
        (half_open, "mariadb_url"),
    ],
)
async def test_nothing_that_is_over_runs_again(
    trouble: Trouble, engine: str, redis_of_its_own: RedisServer, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(redis_of_its_own.port))
        async with open_trial(request.getfixturevalue(engine), redis_of_its_own.url, tmp_path, **QUICK) as trial:
            worker, bystander = await trial.started(2, REDIS_URL=proxy.url)
            over = await trial.enqueue(TrialWrite() for _ in range(10))
            await trial.until_over(over)
            ending = await trial.enqueue(TrialWrite(gate=trial.gate()) for _ in range(10))

            async def all_run() -> bool:
                return set(ending) <= await trial.running()

            await trial.until(all_run, "the runs that end meanwhile")
            async with trouble(trial, proxy):
                trial.open_gate()
                await trial.until_over(ending)
            (fresh,) = await trial.enqueue([TrialWrite()])
            await trial.until_over([fresh], within_s=SOON_S)
            findings = await trial.findings()
            told = trial.redis.exists(*(wire.RESULT_KEY + run_id for run_id in [*over, *ending, fresh]))
            fences = {run.fence for run in await trial.runs()}
            living = [worker.alive, bystander.alive]
            for process in (worker, bystander):  # before the proxy
                process.kill()

    assert findings.problems == []
    assert fences == {1}
    assert told == 21
    assert living == [True, True]
