"""From the ledger into Redis: what is put there leaves alone what a living worker has."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import update

from db.connection import DatabaseManager, get_async_session
from db.repositories import job_run
from holdfast import wire
from holdfast.outbox import job_runs
from tests.databases.engines import ON_SERVERS
from tests.databases.runs import QUEUE, admitted, attempts_of, heartbeat, run_of, vitals, waiting_run, wanted
from worker import dispatch, ledger, recovery
from worker.ledger import Admitted
from worker.queue.claims import Claimer, LeaseTerms
from worker.queue.scripts import QueueKeys

pytestmark = pytest.mark.usefixtures("manager")


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(redis_url) as made:
        yield made


def claimer(redis: Any, token: bytes, *, lease_ms: int = 60_000) -> Claimer:
    terms = LeaseTerms(token, lease_ms=lease_ms, in_progress_ms=600_000, max_payload_bytes=1 << 20, see_aborts=False)
    return Claimer(redis, QueueKeys(QUEUE), terms)


async def test_a_run_that_was_put_back_leaves_the_claim_of_a_living_worker(redis: Any) -> None:
    run = await waiting_run()
    async with get_async_session() as session:
        await session.execute(update(job_runs).values(dispatched_at=None))
    assert await dispatch.dispatch(redis, wanted()) == 1
    assert len(await claimer(redis, b"dead", lease_ms=1).claim(1)) == 1
    dead = await ledger.admit(run, vitals("dead"), active_here=())
    assert isinstance(dead, Admitted)
    await heartbeat("living")

    # The lease was over before anybody looked at the ledger: a living worker has claimed the entry by itself.
    (claimed,) = await _until_claimed(claimer(redis, b"living"))
    assert await recovery.put_back_orphans(vitals("living"), QUEUE, active_here=()) == [dead.run_id]
    assert await dispatch.dispatch(redis, wanted()) == 1

    assert await redis.get(wire.IN_PROGRESS_KEY + claimed.job_id) == b"living"
    assert await redis.zscore(QUEUE, claimed.job_id) == await redis.zscore(f"{QUEUE}:leases", claimed.job_id)
    assert [one.outcome for one in await attempts_of(dead.run_id)] == ["crashed"]
    assert (await run_of(dead.run_id)).dispatched_at is not None


async def test_a_run_that_was_put_back_is_freed_from_a_dead_claim(redis: Any) -> None:
    run = await waiting_run()
    async with get_async_session() as session:
        await session.execute(update(job_runs).values(dispatched_at=None))
    await dispatch.dispatch(redis, wanted())
    dead = await ledger.admit(run, vitals("dead"), active_here=())
    assert isinstance(dead, Admitted)
    # As Redis has it that lost the lease: nobody would look at the entry before the key has expired.
    await redis.set(wire.IN_PROGRESS_KEY + run.job_id, b"dead", px=600_000)
    await heartbeat("living")
    await recovery.put_back_orphans(vitals("living"), QUEUE, active_here=())
    await dispatch.dispatch(redis, wanted())

    assert [claimed.job_id for claimed in await claimer(redis, b"living").claim(1)] == [run.job_id]


async def _until_claimed(by: Claimer) -> list[Any]:
    while not (claims := await by.claim(1)):
        pass
    return claims


@ON_SERVERS  # SQLite has no locks of rows
async def test_a_row_that_somebody_keeps_locked_holds_up_no_other(manager: DatabaseManager) -> None:
    locked, free = await admitted("dead"), await admitted("dead")
    await heartbeat("living")
    async with manager.session() as somebody:
        await job_run.get_run(somebody, locked.run_id, lock=True)
        assert await recovery.put_back_orphans(vitals("living"), QUEUE, active_here=()) == [free.run_id]
    assert await recovery.put_back_orphans(vitals("living"), QUEUE, active_here=()) == [locked.run_id]
