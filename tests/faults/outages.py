"""Redis goes and comes back, is emptied, or is replaced by a replica that lagged."""

import asyncio
from datetime import UTC, datetime, timedelta

from holdfast import wire
from holdfast.states import RunState
from tests.faults.kinds import TrialWrite
from tests.faults.trial import Trial
from tests.servers import RedisServer

BACK_AT_WORK_S = 5.0
BACK_IN_REDIS_S = 60.0


async def restart_redis(trial: Trial, server: RedisServer, down_s: float) -> float:
    """Kills Redis while runs run, wait in it, are enqueued, and lose their worker; starts it again.

    Returns:
        Seconds from its return until a run that waits has started.
    """
    lives, dies = await trial.started(2, MAX_JOBS="10")
    gate = trial.gate()
    running = await trial.enqueue(TrialWrite(steps=2, gate=gate) for _ in range(20))

    async def all_slots_taken() -> bool:
        return len(await trial.running()) == len(running)

    await trial.until(all_slots_taken, "all slots in use")
    await trial.enqueue(TrialWrite() for _ in range(20))
    await trial.send((TrialWrite() for _ in range(10)), at=datetime.now(UTC) + timedelta(seconds=down_s + 1))

    async def all_in_redis() -> bool:
        return all(run.dispatched_at for run in await trial.runs(RunState.WAITING))

    await trial.until(all_in_redis, "all runs in Redis")
    server.kill()
    dies.kill()
    (fresh,) = await trial.enqueue([TrialWrite()])
    await trial.pause(down_s)
    await asyncio.to_thread(server.start)
    trial.open_gate()

    async def has_started() -> bool:
        return any(run.fence for run in await trial.runs() if run.job_id not in running)

    back_s = await trial.until(has_started, "a start after the return", within_s=BACK_AT_WORK_S)
    await trial.until_over([fresh])
    assert lives.alive
    return back_s


async def flush_redis(trial: Trial, waiting: int, running: int, *, gate: str = "gate") -> tuple[float, float]:
    """Empties Redis with so many runs waiting in it and running; ``gate`` is one that was not opened yet.

    Returns:
        Seconds until all of them were in Redis again, and until all were over.
    """
    (worker,) = await trial.started(MAX_JOBS=str(running))
    first = await trial.enqueue(TrialWrite(gate=trial.gate(gate)) for _ in range(running))
    await trial.until_running(first, worker)
    await trial.enqueue(TrialWrite() for _ in range(waiting))

    async def all_in_redis() -> bool:
        return bool(trial.redis.zcard(wire.DEFAULT_QUEUE) == running + waiting)

    await trial.until(all_in_redis, "all runs in Redis", within_s=BACK_IN_REDIS_S)
    trial.redis.flushall()
    back_s = await trial.until(all_in_redis, "all runs in Redis again", within_s=BACK_IN_REDIS_S)
    trial.open_gate(gate)
    over_s = await trial.until_over(within_s=BACK_IN_REDIS_S + waiting / 20)
    assert worker.alive
    return back_s, over_s
