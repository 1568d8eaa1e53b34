"""The end of ``run --burst``: as soon as nothing is due that may start here."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from db.connection import get_reading_session
from db.in_time import in_time
from db.repositories import due_runs
from holdfast import wire
from holdfast.states import RunState
from worker.logs import get_logger
from worker.queue import Worker
from worker.queue.scripts import QueueKeys
from worker.runtime import Runtime
from worker.stock_claims import kind_of

POLL_S = 0.1
PAYLOADS_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Left:
    """Due runs that may not start here until an operator lets them, or another worker comes."""

    counts: Counter[str] = field(default_factory=Counter)
    """By what is in their way."""
    job_ids: set[str] = field(default_factory=set)
    """Those that Redis has: again and again they are claimed, looked at and put back."""


async def end_when_nothing_is_due(worker: Worker, runtime: Runtime) -> None:
    """End the worker as soon as nothing runs or is due but runs that may not start here; say how many those are."""
    while True:
        await asyncio.sleep(POLL_S)
        if runtime.redis is None or runtime.active or not runtime.started.is_set():
            continue
        try:
            left = await _left(runtime)
        except (SQLAlchemyError, RedisError, OSError):
            continue  # it can be seen when the database and Redis are back
        # Tasks are looked at last: a run may have been claimed meanwhile.
        if left is not None and worker.tasks.keys() <= left.job_ids and worker.main_task is not None:
            if counts := +left.counts:
                get_logger().warning("due runs were left: they may not start here", **counts)
            worker.allow_pick_jobs = False
            worker.main_task.cancel()
            return


async def _left(runtime: Runtime) -> Left | None:
    """Return what is due and may not start here; None where anything else runs or is due."""
    left = Left()
    for queue in runtime.queues:
        # Before the ledger: what is on its way from the one into the other is seen in one of them.
        job_ids = await _barred_ids(runtime, queue)
        if job_ids is None or runtime.upkeep.is_taking_in:
            return None
        left.job_ids.update(job_id.decode(errors="replace") for job_id in job_ids)
        async with in_time(), get_reading_session() as session:
            live = await due_runs.count_due(session, queue)
        for kind, state, runs in live:
            if (bar := _bar(runtime, queue, kind)) is None:
                return None
            left.counts[bar] += runs if state == RunState.WAITING.value else 0
    return left


def _bar(runtime: Runtime, queue: str, kind: str) -> str | None:
    if runtime.is_held:
        return "held"
    if kind not in runtime.upkeep.kinds:
        return "unknown_kind"
    return runtime.controls.bar(queue=queue, kind=kind)


async def _barred_ids(runtime: Runtime, queue: str) -> list[bytes] | None:
    """Return what Redis has of a queue that is due or claimed and may not start; None where there is anything else."""
    if runtime.is_held:  # nothing of it may start, nor be taken in
        return []
    seconds, microseconds = await runtime.redis.time()
    now_ms = seconds * 1000 + microseconds // 1000
    leases = QueueKeys(queue).leases
    # In one call: what is claimed at this moment is not due any more, and not in the ledger yet.
    async with runtime.redis.pipeline(transaction=True) as pipe:
        pipe.zcount(queue, "-inf", now_ms)
        pipe.zcard(leases)
        pipe.llen(QueueKeys(queue).intake)
        due, leased, announced = await pipe.execute()
    if announced > runtime.upkeep.left_announced.get(queue, 0):
        return None
    if not (due or leased) or ("queue", queue) in runtime.controls.paused:
        return []
    # A kind without a ledger is not among them: Redis does not tell whether its run runs or is only looked at.
    barred = {kind for kind in runtime.upkeep.kinds if runtime.controls.bar(queue=queue, kind=kind)}
    if not barred:
        return None
    async with runtime.redis.pipeline(transaction=True) as pipe:
        pipe.zrangebyscore(queue, "-inf", now_ms)
        pipe.zrange(leases, 0, -1)
        parts = await pipe.execute()
    job_ids: list[bytes] = [job_id for part in parts for job_id in part]
    for start in range(0, len(job_ids), PAYLOADS_AT_ONCE):
        keys = [wire.JOB_KEY.encode() + job_id for job_id in job_ids[start : start + PAYLOADS_AT_ONCE]]
        if any(kind_of(payload) not in barred for payload in await runtime.redis.mget(keys)):
            return None
    return job_ids
