"""Entries that cannot be run, and the ledger: no end is told to Redis of a run that is live there (I2)."""

import asyncio
from functools import partial
from typing import Any
from uuid import UUID

from arq.worker import Retry
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from db.connection import get_async_session, get_reading_session
from db.errors import first_line
from db.in_time import in_time
from db.races import again_after_race
from db.repositories import due_runs, job_run
from db.repositories.job_run import RunRow
from holdfast import wire
from holdfast.states import RunState
from worker.dispatch import milliseconds, payload_of
from worker.logs import get_logger
from worker.newcomers import is_storable_id
from worker.queue.claims import Claimed
from worker.queue.ends import Refused, Withdrawn
from worker.retries import OBSTACLE_S, waiting_for_the_ledger
from worker.run import HELD_ELSEWHERE_S
from worker.runtime import Runtime

UNKNOWN_KIND_S = 5.0
"""Seconds after which a run is due again that was claimed by a worker which does not know its kind: while those that do
are busy it may come by that one again and again."""
LOOKS, LOOK_S = 20, 0.05
"""A claim may be quicker than who has put the entry there and notes that in the ledger."""


async def ask_the_ledger(runtime: Runtime, claimed: Claimed, refusal: Refused, enqueued_ms: int) -> None:
    """Look into the ledger before Redis is told that an entry cannot be run.

    A run that can never be run as Redis has it ends here as failed, for the same reason. One whose payload is gone gets
    it back. One of a kind that only this worker does not know goes back to the ledger, for a worker that does.

    Args:
        runtime: this worker.
        claimed: the entry.
        refusal: why it cannot be run.
        enqueued_ms: when it was enqueued, Unix ms; 0 where its payload does not tell.

    Raises:
        arq.worker.Retry: it is not over: the entry goes back.
        Withdrawn: the entry is taken away, the run waits in the ledger.
    """
    if claimed.id_problem or not is_storable_id(claimed.job_id):
        return  # there is no such run
    if runtime.is_held:
        raise Retry(defer=OBSTACLE_S)
    with waiting_for_the_ledger(claimed.job_id, get_logger(run_id=claimed.job_id)):
        run = await _run_of(claimed, enqueued_ms)
        if run is not None and not refusal.lacks and not RunState(run.state).is_over:
            await _fail(claimed, run.id, wire.plain_error(refusal.reason))
    if run is not None and refusal.lacks == "payload":
        await _give_payload(runtime.redis, claimed, run)
    if run is not None and refusal.lacks == "function":
        _leave_to_others(claimed, run)


async def _run_of(claimed: Claimed, enqueued_ms: int) -> RunRow | None:
    async with in_time(), get_reading_session() as session:
        run = await due_runs.entry_of(session, claimed.keys.queue, claimed.job_id)
    is_another = run is not None and enqueued_ms not in (0, milliseconds(run.enqueued_at))
    return None if is_another else run  # ids are used again


async def _fail(claimed: Claimed, run_id: UUID, error: dict[str, str]) -> None:
    async def transaction() -> bool:
        async with in_time(), get_async_session() as session:
            run = await job_run.get_run(session, run_id, lock=True)
            waits = run is not None and run.state == RunState.WAITING.value
            if waits:
                await job_run.end_waiting(session, run_id, RunState.FAILED, error=error)
            return waits

    if not await again_after_race(transaction):
        raise Retry(defer=HELD_ELSEWHERE_S)


async def _give_payload(redis: Any, claimed: Claimed, run: RunRow) -> None:
    if run.finished_at is not None and milliseconds(run.finished_at) < claimed.score:
        return  # the id was used again since
    try:
        await redis.set(wire.JOB_KEY + run.job_id, payload_of(run), nx=True)
    except (RedisError, OSError) as error:
        raise Retry(defer=HELD_ELSEWHERE_S) from error
    get_logger(run_id=run.id, kind=run.kind).info("the payload is in Redis again, the run goes on")
    raise Retry  # admission knows what to do with it, whatever its state


def _leave_to_others(claimed: Claimed, run: RunRow) -> None:
    if run.state != RunState.WAITING.value or claimed.aborted:
        raise Retry(defer=HELD_ELSEWHERE_S)  # who knows it tells its end; who was aborted ends in the ledger soon
    get_logger(run_id=run.id, kind=run.kind).info("this worker does not know the kind, the run is left to others")
    raise Withdrawn(partial(_put_off, run.id))


async def _put_off(run_id: UUID) -> None:
    try:
        for _ in range(LOOKS):
            async with in_time(), get_async_session() as session:
                if await due_runs.put_off(session, run_id, UNKNOWN_KIND_S):
                    return
            await asyncio.sleep(LOOK_S)
    except (SQLAlchemyError, OSError) as error:  # the sweep finds that Redis lacks it
        get_logger(run_id=run_id).warning("the run waits for the next sweep", error=first_line(error))
