"""What the long trials of the core do, and how each tells what it has measured."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.faults.crashes import kill_all_again_and_again, kill_one_of_two, run_poison_among_innocents
from tests.faults.deploys import MARGIN_S, deploy
from tests.faults.freezes import freeze_one_of_two
from tests.faults.nemesis import Nemesis
from tests.faults.outages import flush_redis, restart_redis
from tests.faults.poisoning import poison_redis
from tests.faults.producers import kill_dispatchers, kill_producers
from tests.faults.trial import QUICK, Trial
from tests.faults.waits import wait_for_days
from tests.forks import Forks
from tests.servers import RedisServer

RESTARTS = "restarted_redis"
"""The trial that is done with each way of writing Redis's log, and each length of an outage."""
Log = Literal["no", "everysec", "always"]
LOGS: tuple[Log, ...] = ("no", "everysec", "always")
DOWN_S = (0.3, 1.5, 3.0, 10.0, 60.0)
GRACE_S = 10.0
LATE_S = 1.0


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
    return f"all workers are killed {arena.scale.kills} times: {hit} starts of 100 runs were hit"


async def _poison(arena: Arena) -> str:
    deaths = await run_poison_among_innocents(arena.trial, 20)
    return f"a run that kills its worker, among 20 others: quarantined after {deaths} deaths"


async def _killed_producers(arena: Arena) -> str:
    orders = await kill_producers(arena.trial, arena.scale.producer_kills, arena.rng)
    await arena.trial.started(MAX_JOBS="50")
    return f"{arena.scale.producer_kills} producers are killed: {orders} orders, as many runs"


async def _killed_dispatchers(arena: Arena) -> str:
    with Forks() as arena.trial.starter:
        dispatched = await kill_dispatchers(arena.trial, arena.scale.dispatcher_kills, 100, arena.rng)
    arena.trial.starter = None
    await arena.trial.started(MAX_JOBS="50")
    return f"{arena.scale.dispatcher_kills} dispatching workers are killed: {dispatched} runs were in Redis by then"


async def _flushed_redis(arena: Arena) -> str:
    back_s, over_s = await flush_redis(arena.trial, arena.scale.waiting, 20)
    words = f"FLUSHALL with {arena.scale.waiting} runs waiting and 20 running"
    return f"{words}: all in Redis again after {back_s:.1f} s (limit 60), over after {over_s:.1f} s"


async def _deploy(arena: Arena) -> str:
    took_s = await deploy(arena.trial, GRACE_S, walking_runs=20)
    words = f"SIGTERM with a time of grace of {GRACE_S:g} s, 40 runs of a single try and some that heed nothing"
    return (
        f"{words}: at its end after {took_s:.1f} s (limit {GRACE_S + MARGIN_S:g}), no try charged, each at its cursor"
    )


async def _frozen_worker(arena: Arena) -> str:
    over_s = await freeze_one_of_two(arena.trial, 100)
    where = {"postgresql": ", inside one, and inside COPY", "sqlite": ""}.get(arena.trial.engine, " and inside one")
    words = f"a worker with 100 runs between two batches{where} is frozen and wakes"
    return f"{words}: all started and over in another one after {over_s:.1f} s (limit 15), each effect once"


async def _hostile_entries(arena: Arena) -> str:
    found = await poison_redis(arena.trial)
    assert found.late_s <= LATE_S, f"a good run was {found.late_s:.1f} s late"
    words = (
        f"{found.kinds} kinds of hostile entries: {found.parked} in quarantine, {found.refused} failed with a reason"
    )
    return f"{words}, 0 deaths, 0 executed; good runs started at most {found.late_s:.2f} s late (limit {LATE_S:g})"


async def _long_waits(arena: Arena) -> str:
    await wait_for_days(arena.trial, 500)
    words = "1,000 runs wait for two days, their results expire, half of them are delivered again"
    return f"{words}: each ran once and stands in the history"


async def _nemesis(arena: Arena) -> str:
    nemesis = Nemesis(arena.trial, arena.redis, arena.scale.seed)
    await nemesis.run(arena.scale.nemesis_s)
    deeds = ", ".join(f"{count} x {name}" for name, count in nemesis.deeds.most_common())
    return f"everything mixed for {arena.scale.nemesis_s:g} s: {deeds}"


def redis_restarted_after(down_s: float) -> Scenario:
    """Return the trial of an outage of so many seconds."""

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
    (_deploy, DEFAULTS),
    (_frozen_worker, DEFAULTS),
    (_flushed_redis, DEFAULTS),
    (_hostile_entries, DEFAULTS),
    (_long_waits, DEFAULTS),
    (_nemesis, QUICK),
)


def name_of(scenario: Scenario) -> str:
    """Return what it is called on the command line."""
    return scenario.__name__.strip("_")


TRIALS = (*(name_of(scenario) for scenario, _ in ON_EACH_ENGINE), RESTARTS)
