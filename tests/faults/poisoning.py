"""Everything hostile that anybody may have written to Redis, one after the other, beside good runs."""

import json
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy import select

from db.models import JobAttempt
from db.repositories.job_run import RunRow
from holdfast import Client, wire
from holdfast.states import RunState
from tests.faults.history import Expected
from tests.faults.hostile import BAD_IDS, ODD_IDS, odd_payloads, payload, refused_payloads
from tests.faults.kinds import TrialWrite
from tests.faults.trial import PATIENCE_S, Trial
from tests.queue.engine.poison import bad_payloads

QUEUE = wire.DEFAULT_QUEUE
REFUSED = Expected(states=frozenset({RunState.FAILED, RunState.QUARANTINED}), most_charged=None)
ANY_END = Expected(states=frozenset({RunState.SUCCEEDED, RunState.FAILED}), most_charged=None)
OWN_KEYS = (":leases", ":owners", ":scores")
"""They are given a wrong type."""
GOOD_BEHIND = 20


@dataclass(frozen=True)
class Poison:
    """One entry of the queue with its payload (None: that key has another type)."""

    name: str
    raw_id: bytes
    data: bytes | None
    expected: Expected | None
    """What may stand in the ledger; None: it is to be in quarantine."""


@dataclass(frozen=True)
class Poisoned:
    """What came of it."""

    kinds: int
    parked: int
    refused: int
    late_s: float
    """How much later than it was enqueued the latest good run started."""


def catalogue(bomb: Path) -> list[Poison]:
    """All of it; the file `bomb` is there if anything of it was executed."""
    found = [Poison(name, b"parked " + name.encode(), data, None) for name, data in bad_payloads(bomb).items()]
    found += [Poison(name, name.encode(), data, REFUSED) for name, data in refused_payloads().items()]
    found += [Poison(name, name.encode(), data, ANY_END) for name, data in odd_payloads().items()]
    found += [Poison(f"id: {name}", raw_id, payload(), None) for name, raw_id in BAD_IDS.items()]
    found += [Poison(f"id: {name}", raw_id, payload(), Expected()) for name, raw_id in ODD_IDS.items()]
    return [*found, Poison("a payload that is no string", b"no string", None, None)]


async def poison_redis(trial: Trial, *, at_once: bool = False) -> Poisoned:
    """Puts each kind of poison before a good run; the good runs have to start all the same.

    Args:
        trial: whose Redis it is.
        at_once: everything waits already when the worker starts, the good runs behind it; else each kind by itself.
    """
    bomb = trial.folder / "bomb"
    poisons, good = catalogue(bomb), list[str]()
    if at_once:
        for number, poison in enumerate(poisons):
            _put(trial, poison, announced=number % 2 == 0)
        good += await trial.enqueue(TrialWrite() for _ in range(GOOD_BEHIND))
    (worker,) = await trial.started()
    if not at_once:
        good += await _put_one_by_one(trial, poisons)
    await trial.until_over(good)
    await trial.findings()  # when Redis has heard of everything, whatever they are
    runs, parked = await trial.runs(), _quarantined(trial)
    ends = {run.job_id: run for run in runs}
    untold = [poison.name for poison in poisons if not _is_told(poison, ends, parked)]
    assert not untold, f"of these nobody tells: {untold}"
    assert not bomb.exists(), "something was executed"
    assert worker.alive, worker.text
    refused = sum(run.state != RunState.SUCCEEDED for run in runs)
    return Poisoned(len(poisons) + len(OWN_KEYS), len(parked), refused, await _latest_s(trial, good))


async def _put_one_by_one(trial: Trial, poisons: list[Poison]) -> list[str]:
    good = []
    async with Client(trial.redis_url) as client:
        for number, poison in enumerate(poisons):
            _put(trial, poison, announced=number % 2 == 0)
            good.append(await _perform(trial, client))
        for suffix in OWN_KEYS:
            _break(trial, QUEUE + suffix)
            good.append(await _perform(trial, client))
    return good


def _put(trial: Trial, poison: Poison, *, announced: bool) -> None:
    """Enqueues before all good runs, as stock producers do or, announced, as our client."""
    key = wire.JOB_KEY.encode() + poison.raw_id
    with trial.redis.pipeline(transaction=True) as pipe:
        if poison.data is None:
            pipe.rpush(key, b"x")
        else:
            pipe.set(key, poison.data)
        pipe.zadd(QUEUE, {poison.raw_id: 1})
        if announced:
            pipe.rpush(QUEUE + wire.INTAKE_SUFFIX, poison.raw_id)
        pipe.execute()
    if poison.expected is not None:
        trial.asked.unsure[poison.raw_id.decode()].append(poison.expected)


def _break(trial: Trial, key: str) -> None:
    """Gives a key a type that it should not have."""
    with trial.redis.pipeline(transaction=True) as pipe:
        pipe.delete(key)
        pipe.set(key, b"oops")
        pipe.execute()


async def _perform(trial: Trial, client: Client) -> str:
    """Has a good run done; returns its id."""
    run = await client.enqueue(TrialWrite())
    trial.asked.acknowledged[run.id].append(Expected())
    await run.result(timeout_s=PATIENCE_S)
    return run.id


def _quarantined(trial: Trial) -> dict[bytes, str]:
    """The reasons by the ids that Redis knows."""
    kept = trial.redis.hgetall(f"{QUEUE}:quarantine")
    return {raw_id: json.loads(entry)["reason"] for raw_id, entry in kept.items()}


def _is_told(poison: Poison, ends: dict[str, RunRow], parked: dict[bytes, str]) -> bool:
    """Whether the ledger or the quarantine says how it ended, and why if it did not succeed."""
    if parked.get(poison.raw_id):
        return True
    if poison.expected is None or (run := ends.get(poison.raw_id.decode())) is None:
        return False
    return run.state == RunState.SUCCEEDED or bool(run.error["message"])


async def _latest_s(trial: Trial, good: list[str]) -> float:
    enqueued = {run.id: run.enqueued_at for run in await trial.runs() if run.job_id in set(good)}
    first = select(JobAttempt.run_id, JobAttempt.started_at).where(JobAttempt.fence == 1)
    async with trial.manager.session(read_only=True) as session:
        started: dict[UUID, float] = {
            run_id: (started_at - enqueued[run_id]).total_seconds()
            for run_id, started_at in await session.execute(first)
            if run_id in enqueued
        }
    return max(started.values())
