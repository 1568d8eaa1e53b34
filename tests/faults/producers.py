"""Producers with the outbox, and the workers that dispatch for them, are killed at random moments."""

import asyncio
import random
from uuid import UUID

from sqlalchemy import literal, select, union_all

from holdfast import wire
from holdfast.outbox import job_runs
from tests.faults import producer
from tests.faults.effects import orders
from tests.faults.history import Expected
from tests.faults.kinds import TrialWrite
from tests.faults.trial import Trial
from tests.processes import WorkerProcess

LONGEST_S = 0.3


async def kill_producers(trial: Trial, kills: int, rng: random.Random) -> int:
    """Kills producers so often; after each, the orders are the runs. Returns how many there are."""
    for number in range(kills):
        words = (trial.environment["DATABASE_URL"], str(rng.randrange(2**32)))
        program = ("-m", "tests.faults.producer")
        name = f"producer-{number}"
        with WorkerProcess(trial.environment, trial.folder, program=program, arguments=words, name=name) as process:
            await asyncio.to_thread(process.wait_for, producer.READY)
            await trial.pause(rng.uniform(0.0, LONGEST_S))
            assert process.alive, process.text
            process.kill()
        ordered, enqueued = await _orders_and_runs(trial)
        assert ordered == enqueued, f"lost {len(ordered - enqueued)}, phantoms {len(enqueued - ordered)}"
    for run_id in ordered:
        trial.asked.acknowledged[str(run_id)].append(Expected())
    return len(ordered)


async def _orders_and_runs(trial: Trial) -> tuple[set[UUID], set[UUID]]:
    # In one statement: the last commit of a dead client may come to pass just now.
    both = union_all(select(literal(True).label("is_order"), orders.c.run_id), select(literal(False), job_runs.c.id))
    async with trial.manager.session(read_only=True) as session:
        rows = (await session.execute(both)).all()
    return {row.run_id for row in rows if row.is_order}, {row.run_id for row in rows if not row.is_order}


async def kill_dispatchers(trial: Trial, kills: int, runs_each: int, rng: random.Random) -> int:
    """Kills workers so often while they dispatch; returns how many runs Redis had heard of at these moments."""
    dispatched = 0
    for _ in range(kills):
        await trial.enqueue(TrialWrite() for _ in range(runs_each))
        before = trial.redis.zcard(wire.DEFAULT_QUEUE)
        threshold = before + rng.randint(1, runs_each)
        worker = trial.worker(MAX_JOBS="1")

        async def midway(threshold: int = threshold) -> bool:
            return bool(trial.redis.zcard(wire.DEFAULT_QUEUE) >= threshold)

        await trial.until(midway, f"{threshold} runs in Redis")
        worker.kill()
        dispatched += trial.redis.zcard(wire.DEFAULT_QUEUE) - before
    trial.worker(MAX_JOBS="50")
    return dispatched
