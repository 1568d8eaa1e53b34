"""The long trials of the core: each of FAULTS' numbers in full, one line a trial, with its figures and its verdict."""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.faults.crashes import kill_all_again_and_again, kill_one_of_two, run_poison_among_innocents
from tests.faults.nemesis import Nemesis
from tests.faults.outages import flush_redis, restart_redis
from tests.faults.producers import kill_dispatchers, kill_producers
from tests.faults.trial import QUICK, Trial, open_trial
from tests.servers import MariaDBServer, PostgresServer, RedisServer

LONGEST_S = 600.0
RESTARTS = "restarted_redis"
"""The trial that is done with each way of writing Redis's log, and each length of an outage."""
Log = Literal["no", "everysec", "always"]
LOGS: tuple[Log, ...] = ("no", "everysec", "always")
DOWN_S = (0.3, 1.5, 3.0, 10.0, 60.0)


@dataclass(frozen=True)
class Scale:
    """How much of it."""

    seed: int
    kills: int = 6
    producer_kills: int = 200
    dispatcher_kills: int = 100
    waiting: int = 10_000
    nemesis_s: float = 60.0
    logs: Sequence[Log] = LOGS
    down_s: Sequence[float] = DOWN_S


@dataclass(frozen=True)
class Arena:
    """What one trial works with."""

    trial: Trial
    redis: RedisServer
    rng: random.Random
    scale: Scale


Scenario = Callable[[Arena], Awaitable[str]]


async def _killed_worker(arena: Arena) -> str:
    fresh_s, again_s = await kill_one_of_two(arena.trial, 100)
    words = f"a worker is killed with 100 runs: all running again after {again_s:.1f} s (limit 15)"
    return f"{words}, a fresh run was over after {fresh_s:.1f} s (limit 2)"


async def _killed_workers(arena: Arena) -> str:
    hit = await kill_all_again_and_again(arena.trial, 100, arena.scale.kills, arena.rng)
    return f"all workers are killed {arena.scale.kills} times: {hit} of 100 runs' starts were hit"


async def _poison(arena: Arena) -> str:
    deaths = await run_poison_among_innocents(arena.trial, 20)
    return f"a run that kills its worker, among 20 others: quarantined after {deaths} deaths"


async def _killed_producers(arena: Arena) -> str:
    orders = await kill_producers(arena.trial, arena.scale.producer_kills, arena.rng)
    await arena.trial.started(MAX_JOBS="50")
    return f"{arena.scale.producer_kills} producers are killed: {orders} orders, as many runs"


async def _killed_dispatchers(arena: Arena) -> str:
    dispatched = await kill_dispatchers(arena.trial, arena.scale.dispatcher_kills, 100, arena.rng)
    return f"{arena.scale.dispatcher_kills} dispatching workers are killed: {dispatched} runs were in Redis by then"


async def _flushed_redis(arena: Arena) -> str:
    back_s, over_s = await flush_redis(arena.trial, arena.scale.waiting, 20)
    words = f"FLUSHALL with {arena.scale.waiting} runs waiting and 20 running"
    return f"{words}: all in Redis again after {back_s:.1f} s (limit 60), over after {over_s:.1f} s"


async def _nemesis(arena: Arena) -> str:
    nemesis = Nemesis(arena.trial, arena.redis, arena.scale.seed)
    await nemesis.run(arena.scale.nemesis_s)
    deeds = ", ".join(f"{count} x {name}" for name, count in nemesis.deeds.most_common())
    return f"everything mixed for {arena.scale.nemesis_s:g} s: {deeds}"


def _redis_restarted_after(down_s: float) -> Scenario:
    async def _restarted_redis(arena: Arena) -> str:
        back_s = await restart_redis(arena.trial, arena.redis, down_s)
        return f"Redis is killed for {down_s:g} s: at work again after {back_s:.1f} s (limit 5)"

    return _restarted_redis


DEFAULTS: dict[str, str] = {"LOG_LEVEL": "info"}
"""The workers' own settings: nothing that matters here is set."""
ON_EACH_ENGINE: tuple[tuple[Scenario, dict[str, str]], ...] = (
    (_killed_worker, DEFAULTS),
    (_killed_workers, QUICK),
    (_poison, QUICK),
    (_killed_producers, QUICK),
    (_killed_dispatchers, QUICK),
    (_flushed_redis, DEFAULTS),
    (_nemesis, QUICK),
)


def _name(scenario: Scenario) -> str:
    return scenario.__name__.strip("_")


TRIALS = (*(_name(scenario) for scenario, _ in ON_EACH_ENGINE), RESTARTS)


async def run_core(engine: str, scale: Scale, only: Collection[str] = TRIALS) -> bool:
    """Runs these trials on an engine; returns whether all of them passed."""
    passed = True
    for scenario, settings in ON_EACH_ENGINE:
        if _name(scenario) in only:
            passed &= await _run(engine, scale, scenario, settings)
    if RESTARTS in only:
        for log in scale.logs:
            for down_s in scale.down_s:
                words = "without a log, " if log == "no" else f"with a log flushed {log}, "
                passed &= await _run(engine, scale, _redis_restarted_after(down_s), DEFAULTS, log, words)
    return passed


async def _run(
    engine: str,
    scale: Scale,
    scenario: Scenario,
    settings: dict[str, str],
    log: Log = "no",
    note: str = "",
) -> bool:
    began = time.monotonic()
    try:
        async with _arena(engine, scale, settings, log) as arena:
            words = await scenario(arena)
            findings = await arena.trial.findings(within_s=LONGEST_S)
            runs = len(await arena.trial.runs())
            problems = findings.problems
    except AssertionError as error:
        words, runs, problems = _name(scenario).replace("_", " "), 0, [str(error)]
    verdict = "nothing lost, nothing doubled" if not problems else f"FAILED: {'; '.join(problems)}"
    print(f"{engine:<10}  {note}{words}; {runs} runs, {verdict}; {time.monotonic() - began:.0f} s", flush=True)
    return not problems


@asynccontextmanager
async def _arena(engine: str, scale: Scale, settings: dict[str, str], log: Log) -> AsyncIterator[Arena]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-faults-")))
        server = stack.enter_context(await asyncio.to_thread(RedisServer, appendonly=log))
        url = f"sqlite:///{folder / 'holdfast.db'}"
        if engine != "sqlite":
            make: type[PostgresServer | MariaDBServer] = PostgresServer if engine == "postgresql" else MariaDBServer
            database: PostgresServer | MariaDBServer = await asyncio.to_thread(make)
            stack.enter_context(database)
            url = database.create_database()
        trial = await stack.enter_async_context(open_trial(url, server.url, folder, **settings))
        trial.is_quiet = True
        yield Arena(trial, server, random.Random(scale.seed), scale)  # noqa: S311 - it must repeat
