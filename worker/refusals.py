"""Entries that cannot be run, and the ledger: no end is told to Redis of a run that is live there (I2)."""

from datetime import timedelta
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

UNKNOWN_KIND_S = 1.0
"""Seconds after which an entry is due again that was claimed by a worker which does not know its kind."""
LONG_IN_REDIS = timedelta(minutes=1)
"""Who knows the kind has claimed a run by then, unless it has much else to do, or there is no such worker any more."""


async def ask_the_ledger(runtime: Runtime, claimed: Claimed, refusal: Refused, enqueued_ms: int) -> None:
    """Look into the ledger before Redis is told that an entry cannot be run.

    A run that can never be run as Redis has it ends here as failed, for the same reason. One whose payload is gone gets
    it back. One of a kind that only this worker does not know is left to others: its entry goes back, or, where it has
    been in Redis for long, the run goes back to the ledger, where the sweep of a worker that knows the kind finds it.

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
        _leave_to_others(runtime, claimed, run)


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


def _leave_to_others(runtime: Runtime, claimed: Claimed, run: RunRow) -> None:
    if run.state != RunState.WAITING.value or claimed.aborted:
        raise Retry(defer=HELD_ELSEWHERE_S)  # who knows it tells its end; who was aborted ends in the ledger soon
    if run.kind not in runtime.unknown_kinds:
        runtime.unknown_kinds.add(run.kind)
        get_logger(kind=run.kind).warning("this worker does not know the kind, its runs are left to others")
    if run.dispatched_at is None or run.now - run.dispatched_at < LONG_IN_REDIS:
        raise Retry(defer=UNKNOWN_KIND_S)
    raise Withdrawn(partial(_take_back, run.id))


async def _take_back(run_id: UUID) -> None:
    try:
        async with in_time(), get_async_session() as session:
            await due_runs.unmark_dispatched(session, run_id)
    except (SQLAlchemyError, OSError) as error:  # the sweep finds that Redis lacks it
        get_logger(run_id=run_id).warning("a run is not in Redis, though it was dispatched", error=first_line(error))
