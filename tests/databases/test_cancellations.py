"""What producers want to be cancelled stands in Redis only until a worker has carried it into the ledger."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from db.connection import get_async_session
from db.repositories import job_run
from db.settings import DatabaseSettings
from holdfast import Client, RunCancelled, outbox, wire
from holdfast.requests import ImportReport, ImportTasks
from holdfast.states import RunState
from jobs.registry import load_jobs
from tests.databases.runs import QUEUE, admitted, attempts_of, born_again, heartbeat, run_of, silence, vitals, wanted
from worker import cancellations, dispatch, ledger, reconcile, recovery
from worker.retries import Outcome
from worker.run import run_attempt
from worker.runtime import Runtime
from worker.settings import Settings

pytestmark = pytest.mark.usefixtures("manager")

REQUEST = ImportTasks(source="/imports/tasks.csv")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    async with Client(redis_url) as made:
        yield made


async def enqueued(*, at: datetime | None = None, queue: str = QUEUE) -> UUID:
    async with get_async_session() as session:
        return await outbox.enqueue(session, REQUEST, at=at, queue=queue)


async def cancel(client: Client, run_id: UUID) -> None:
    assert await client.run(run_id, ImportReport, born_in_ledger=True).cancel()


async def carry(redis: Any, watch: reconcile.RedisWatch | None = None) -> None:
    """As a worker does once a second."""
    sight = await (watch or reconcile.RedisWatch([QUEUE], ())).look(redis)
    await cancellations.carry(redis, QUEUE, sight.aborted)


async def assert_ended(client: Client, run_id: UUID) -> None:
    """The ledger has it as cancelled, and its producer is told."""
    row = await run_of(run_id)
    assert (row.state, row.error, row.live_key) == ("cancelled", ledger.CANCELLED, None)
    with pytest.raises(RunCancelled, match="cancelled before it started"):
        await client.run(run_id, ImportReport).result(timeout_s=10)


async def left_of(redis: Any, run_id: UUID) -> list[bytes]:
    """What Redis still has of a run besides its result."""
    job_id = str(run_id)
    scores = [key for key in (QUEUE, wire.ABORT_KEY) if await redis.zscore(key, job_id) is not None]
    names = [prefix + job_id for prefix in (wire.JOB_KEY, wire.RETRY_KEY, wire.IN_PROGRESS_KEY)]
    return [*(key.encode() for key in scores), *[name.encode() for name in names if await redis.exists(name)]]


@pytest.mark.parametrize("place", ["in Redis", "due in a week", "forgotten by Redis"])
async def test_a_run_that_waits_wherever_it_is(redis: Any, client: Client, place: str) -> None:
    run_id = await enqueued(at=datetime.now(UTC) + timedelta(days=7) if place == "due in a week" else None)
    await dispatch.dispatch(redis, wanted())
    if place == "forgotten by Redis":
        await redis.flushdb()
    await cancel(client, run_id)
    await carry(redis)
    await assert_ended(client, run_id)
    assert await left_of(redis, run_id) == []
    await carry(redis)
    assert await dispatch.dispatch(redis, wanted(horizon=timedelta(days=8))) == 0


async def test_a_running_run_of_any_worker_is_asked_once(redis: Any, client: Client) -> None:
    given = await admitted("ada")
    await cancel(client, given.run_id)
    await carry(redis)
    asked_at = (await run_of(given.run_id)).cancel_requested_at
    assert asked_at is not None
    await redis.flushdb()
    await cancel(client, given.run_id)
    await carry(redis)
    assert (await run_of(given.run_id)).cancel_requested_at == asked_at
    assert (await run_of(given.run_id)).state == "running"
    assert await redis.zcard(wire.ABORT_KEY) == 1  # until its worker has ended it


async def test_a_wish_outlives_redis_and_the_worker(redis: Any, client: Client) -> None:
    await heartbeat("ada", "bob")
    given = await admitted("ada")
    await cancel(client, given.run_id)
    await carry(redis)
    await redis.flushdb()
    await silence("ada")
    put_back = await recovery.put_back_orphans(vitals("bob"), QUEUE, active_here=())
    assert put_back == [given.run_id]
    assert await dispatch.dispatch_runs(redis, ["import_tasks"], put_back) == 0
    await assert_ended(client, given.run_id)
    assert await redis.zcard(QUEUE) == 0


async def test_a_claimed_run_is_left_to_its_worker(redis: Any, client: Client) -> None:
    run_id = await enqueued()
    await dispatch.dispatch(redis, wanted())
    await redis.zadd(f"{QUEUE}:leases", {str(run_id): 2**53})
    await cancel(client, run_id)
    await carry(redis)
    assert (await run_of(run_id)).state == "cancelled"
    assert await left_of(redis, run_id) != []
    end = await ledger.admit(await born_again(run_id), vitals("ada"), active_here=set())
    assert end == ledger.AlreadyOver(run_id, RunState.CANCELLED, None, ledger.CANCELLED)


async def test_what_is_none_of_ours_is_left_alone(redis: Any, client: Client) -> None:
    other = await enqueued(queue="other")
    over = await admitted("ada")
    await ledger.finish(over, Outcome("succeeded", report={}))
    junk: dict[str | bytes, int] = {f"junk {number}": number for number in range(cancellations.ABORTS_AT_ONCE)}
    junk |= {b"\xff\xfe": 1, b"a\0b": 1, "long" * 100: 1, str(other): 1, str(over.run_id): 1}
    await redis.zadd(wire.ABORT_KEY, junk)
    run_id, watch = await enqueued(), reconcile.RedisWatch([QUEUE], ())
    await cancel(client, run_id)  # its entry is behind the junk
    for _ in range(2):
        await carry(redis, watch)
    await assert_ended(client, run_id)
    assert await redis.zcard(wire.ABORT_KEY) == len(junk)
    assert [(await run_of(one)).state for one in (other, over.run_id)] == ["waiting", "succeeded"]


@pytest.mark.parametrize("is_unwanted", [False, True], ids=["by a shutdown", "by an operator"])
async def test_who_is_cancelled_while_the_ledger_admits_it_gives_back_what_it_got(
    settings: DatabaseSettings, is_unwanted: bool
) -> None:
    worker_settings = Settings.model_validate(settings.model_dump())
    runtime, run_id = Runtime(worker_settings, owns_queue=False), await enqueued()
    run = await born_again(run_id)
    async with get_async_session() as session:
        await job_run.get_run(session, run_id, lock=True)
        attempt = asyncio.create_task(run_attempt(runtime, load_jobs(worker_settings)["import_tasks"], run))
        await asyncio.sleep(0.05)
        if is_unwanted:
            runtime.unwanted.add(run_id)
        attempt.cancel()
    with pytest.raises(RunCancelled if is_unwanted else asyncio.CancelledError):
        await attempt
    row = await run_of(run_id)
    assert (row.state, row.crashes, row.attempts) == ("cancelled" if is_unwanted else "waiting", 0, 0)
    assert [one.outcome for one in await attempts_of(run_id)] == ["cancelled" if is_unwanted else "interrupted"]
    assert runtime.active == set()
