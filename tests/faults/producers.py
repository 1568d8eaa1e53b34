"""Producers with the outbox, and the workers that dispatch for them, are killed at random moments."""

import asyncio
import random

from sqlalchemy import exists, literal, select, union_all

from holdfast import wire
from holdfast.outbox import job_runs
from tests.faults import producer
from tests.faults.effects import orders
from tests.faults.history import Expected
from tests.faults.kinds import TrialWrite
from tests.faults.trial import Trial
from tests.processes import WorkerProcess

LONGEST_S = 0.3
AT_ONCE = 4
"""Producers side by side; each dies at a moment of its own."""


async def kill_producers(trial: Trial, kills: int, rng: random.Random) -> int:
    """Kills producers so often; after every few, the orders are the runs. Returns how many there are."""
    for first in range(0, kills, AT_ONCE):
        numbers = range(first, min(first + AT_ONCE, kills))
        deaths = [(number, rng.randrange(2**32), rng.uniform(0.0, LONGEST_S)) for number in numbers]
        await asyncio.gather(*(_kill_producer(trial, number, seed, after_s) for number, seed, after_s in deaths))
        lost, phantoms = await _apart(trial)
        assert not lost + phantoms, f"lost {lost}, phantoms {phantoms}"
    async with trial.manager.session(read_only=True) as session:
        ordered = list((await session.execute(select(orders.c.run_id))).scalars())
    for run_id in ordered:
        trial.asked.acknowledged[str(run_id)].append(Expected())
    return len(ordered)


async def _kill_producer(trial: Trial, number: int, seed: int, after_s: float) -> None:
    words = (trial.environment["DATABASE_URL"], str(seed))
    program, name = ("-m", "tests.faults.producer"), f"producer-{number}"
    with WorkerProcess(trial.environment, trial.folder, program=program, arguments=words, name=name) as process:
        await asyncio.to_thread(process.wait_for, producer.READY)
        await trial.pause(after_s)
        assert process.alive, process.text
        process.kill()


async def _apart(trial: Trial) -> tuple[int, int]:
    """Return how many orders have no run, and how many runs have no order."""
    # In one statement: the last commit of a dead client may come to pass just now. It looks each up by an index, so
    # that it takes no longer as orders grow.
    lost = select(literal(True).label("is_order")).select_from(orders)
    phantom = select(literal(False)).select_from(job_runs)
    same = job_runs.c.id == orders.c.run_id
    both = union_all(
        lost.where(~exists().where(same).correlate(orders)), phantom.where(~exists().where(same).correlate(job_runs))
    )
    async with trial.manager.session(read_only=True) as session:
        apart = [bool(is_order) for is_order in (await session.execute(both)).scalars()]
    return apart.count(True), apart.count(False)


async def kill_dispatchers(trial: Trial, kills: int, runs_each: int, rng: random.Random) -> int:
    """Kills workers so often while they dispatch; returns how many runs Redis had heard of at these moments.

    The queue is paused meanwhile: a worker with one slot would begin the same oldest run each time, and a run that
    loses three workers while it runs alone is quarantined.
    """
    await trial.command("queues", "pause", wire.DEFAULT_QUEUE)
    for number in range(kills):
        await trial.enqueue(TrialWrite() for _ in range(runs_each))
        threshold = trial.redis.zcard(wire.DEFAULT_QUEUE) + rng.randint(1, runs_each)
        worker = trial.worker()

        async def midway(threshold: int = threshold) -> bool:
            return bool(trial.redis.zcard(wire.DEFAULT_QUEUE) >= threshold)

        await trial.until(midway, f"{threshold} runs in Redis after {number} kills")
        worker.kill()
    dispatched: int = trial.redis.zcard(wire.DEFAULT_QUEUE)
    assert {run.fence for run in await trial.runs()} == {0}, "a paused queue starts nothing"
    await trial.command("queues", "resume", wire.DEFAULT_QUEUE)
    return dispatched
