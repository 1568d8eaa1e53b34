"""Runs that wait for days, results that Redis has forgotten, and entries that come once more after that."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy import update

from db.repositories import history
from holdfast import Client, outbox, wire
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from holdfast.states import RunState
from tests.faults.history import Expected
from tests.faults.kinds import TrialWrite
from tests.faults.trial import Trial

DAYS = timedelta(days=2)
_DAYS_MS = int(DAYS.total_seconds() * 1000)
KEPT_S = 1
SWEPT_IN_S = 90.0
"""Ids of days ago are found by the sweep, which comes at the start and each minute."""


async def wait_for_days(trial: Trial, runs: int) -> None:
    """Has so many runs enqueued by each door two days ago, as far as database and Redis can tell; a worker does them.

    Nothing of them is left in Redis at the end, and all of them are in the ledger's history; then some are delivered
    again, as a Redis does that comes back from a copy.
    """
    ids = [await _enqueue_days_ago(trial) for _ in range(runs)]
    payloads = await _send_days_ago(trial, runs)
    assert {trial.redis.pttl(wire.JOB_KEY + job_id) for job_id in payloads} == {-1}, "a payload waits for ever"
    await trial.started(KEEP_RESULT_S=str(KEPT_S))
    everything = [*ids, *payloads]
    await trial.until_over(everything, within_s=SWEPT_IN_S)
    await _until_forgotten(trial, everything)
    await _move_to_history(trial)
    for job_id in payloads:
        _deliver(trial, job_id, payloads[job_id])

    async def told_again() -> bool:
        return bool(trial.redis.zcard(wire.DEFAULT_QUEUE) == 0)

    await trial.until(told_again, "the end of what came again")
    ends = {run.job_id: RunState(run.state) for run in await trial.runs()}
    assert ends == dict.fromkeys(everything, RunState.SUCCEEDED), ends
    shown = await trial.command("runs", "show", everything[-1])
    assert shown["state"] == "succeeded", shown


def _days_ago(run_id: UUID) -> UUID:
    return UUID(int=run_id.int - (_DAYS_MS << 80))


async def _enqueue_days_ago(trial: Trial) -> str:
    run_id = _days_ago(uuid7())
    then = datetime.now(UTC) - DAYS
    then = then.replace(microsecond=then.microsecond // 1000 * 1000)
    async with trial.manager.session() as session:
        await outbox.enqueue(session, TrialWrite(), run_id=run_id)
        await session.execute(
            update(job_runs).where(job_runs.c.id == run_id).values(enqueued_at=then, due_at=then),
        )
    trial.asked.acknowledged[str(run_id)].append(Expected())
    return str(run_id)


async def _send_days_ago(trial: Trial, runs: int) -> dict[str, bytes]:
    """Enqueues by the client, and sets the clock in what it has written back; returns the payloads by their ids."""
    ids = [str(_days_ago(uuid7())) for _ in range(runs)]
    async with Client(trial.redis_url) as client:
        await client.enqueue_many([TrialWrite() for _ in ids], run_ids=ids)
    payloads = {}
    for job_id in ids:
        value = wire.read_job(trial.redis.get(wire.JOB_KEY + job_id))
        payloads[job_id] = wire.dumps(value | {"et": value["et"] - _DAYS_MS})
        trial.redis.set(wire.JOB_KEY + job_id, payloads[job_id], keepttl=True)
        trial.redis.zincrby(wire.DEFAULT_QUEUE, -_DAYS_MS, job_id)
        trial.asked.acknowledged[job_id].append(Expected())
    return payloads


async def _until_forgotten(trial: Trial, ids: list[str]) -> None:
    async def forgotten() -> bool:
        return not trial.redis.exists(*(wire.RESULT_KEY + job_id for job_id in ids))

    await trial.until(forgotten, "the results' end")


async def _move_to_history(trial: Trial) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    async with trial.manager.session() as session:
        await history.move_finished(session, finished_before=later, limit=10_000)


def _deliver(trial: Trial, job_id: str, payload: bytes) -> None:
    trial.redis.set(wire.JOB_KEY + job_id, payload)
    trial.redis.zadd(wire.DEFAULT_QUEUE, {job_id: 1})
