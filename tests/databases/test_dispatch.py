"""From the ledger into Redis: what the usual look finds, what the sweep finds, and what is put there by its id."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis
from sqlalchemy import update

from db.connection import get_async_session
from db.repositories import due_runs, history, job_run, run_actions
from holdfast import outbox, wire
from holdfast.batches import request_payload
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from holdfast.requests import ImportTasks
from tests.databases.runs import QUEUE, admitted, born, run_of, vitals, wanted
from worker import dispatch, ledger, reconcile, recovery
from worker.clock import DatabaseClock
from worker.retries import Outcome

pytestmark = pytest.mark.usefixtures("manager")

REQUEST = ImportTasks(source="/imports/tasks.csv")
KINDS = ["import_tasks"]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(redis_url) as made:
        yield made


def id_at(instant: datetime) -> UUID:
    """A UUIDv7 of an instant."""
    return UUID(int=history.first_id_of(instant).int | uuid7().int & (1 << 80) - 1)


async def enqueued(*, age: timedelta = timedelta(0), at: datetime | None = None, unique_key: str | None = None) -> UUID:
    """A run that a producer has committed now, with an id of that age."""
    run_id = id_at(datetime.now(UTC) - age)
    async with get_async_session() as session:
        return await outbox.enqueue(session, REQUEST, at=at, run_id=run_id, unique_key=unique_key)


async def look(redis: Any) -> int:
    """The usual look of a worker."""
    after = due_runs.watermark(datetime.now(UTC), dispatch.LOOK_BACK)
    return await dispatch.dispatch(redis, wanted(), after=after)


async def queued(redis: Any) -> list[UUID]:
    return sorted(UUID(raw.decode()) for raw in await redis.zrange(QUEUE, 0, -1))


async def test_the_usual_look_finds_what_is_new_and_the_sweep_the_rest(redis: Any) -> None:
    new = [await enqueued(), await enqueued(age=timedelta(seconds=5))]
    late = [await enqueued(age=timedelta(hours=1)), await enqueued(age=timedelta(days=30))]
    far = await enqueued(at=datetime.now(UTC) + timedelta(hours=1))
    assert await look(redis) == 2
    assert await queued(redis) == sorted(new)
    assert await look(redis) == 0
    assert await dispatch.dispatch(redis, wanted()) == 2
    assert await queued(redis) == sorted([*new, *late])
    assert await dispatch.dispatch(redis, wanted()) == 0
    assert [(await run_of(run_id)).dispatched_at is None for run_id in (*new, *late, far)] == [False] * 4 + [True]


async def test_more_than_one_page_in_their_order(redis: Any) -> None:
    async with get_async_session() as session:
        run_ids = [await outbox.enqueue(session, REQUEST) for _ in range(dispatch.PAGE_RUNS + 7)]
    assert await look(redis) == len(run_ids)
    assert await queued(redis) == run_ids


async def test_runs_of_kinds_that_this_worker_does_not_know_hinder_no_other(redis: Any) -> None:
    async with get_async_session() as session:
        run_ids = [await outbox.enqueue(session, REQUEST) for _ in range(dispatch.PAGE_RUNS + 1)]
        await session.execute(update(job_runs).where(job_runs.c.id.in_(run_ids)).values(kind="another"))
    own = await enqueued()
    assert await look(redis) == 1
    assert await queued(redis) == [own]


async def test_several_that_look_at_once_mark_each_run_once(redis: Any) -> None:
    run_ids = [await enqueued() for _ in range(5)]
    await asyncio.gather(*(look(redis) for _ in range(4)))
    assert await queued(redis) == sorted(run_ids)
    marked = [(await run_of(run_id)).dispatched_at for run_id in run_ids]
    async with get_async_session() as session:
        await due_runs.mark_dispatched(session, run_ids)
    assert [(await run_of(run_id)).dispatched_at for run_id in run_ids] == marked


async def test_a_duplicate_is_decided_before_it_is_put_there(redis: Any) -> None:
    first, second = await enqueued(unique_key="k"), await enqueued(unique_key="k")
    assert await look(redis) == 1
    assert await queued(redis) == [first]
    assert (await run_of(second)).duplicate_of == first


async def test_what_a_dead_worker_left_is_put_there_by_its_id(redis: Any) -> None:
    run_id = await enqueued(age=timedelta(hours=1))
    await admitted("dead", run_id=run_id)
    (put_back,) = await recovery.put_back_orphans(vitals("ada"), QUEUE, active_here=())
    assert put_back == run_id
    assert await look(redis) == 0
    assert await dispatch.dispatch_runs(redis, KINDS, [run_id]) == 1
    assert await queued(redis) == [run_id]
    assert await dispatch.dispatch_runs(redis, ["another"], [run_id]) == 0


async def test_a_request_is_no_larger_in_redis_than_its_producer_has_measured(redis: Any) -> None:
    request = ImportTasks(source="/imports/ä.csv", constants={f"metadata.{number}": "c, d" for number in range(1000)})
    async with get_async_session() as session:
        run_id = await outbox.enqueue(session, request)
    direct = replace(born(), request=request.payload())
    async with get_async_session() as session:
        put_back = await job_run.insert_born_run(session, direct)
    assert await dispatch.dispatch_runs(redis, KINDS, [run_id, put_back]) == 2
    measured = len(request_payload(request, 1_767_225_600_000, max_bytes=wire.MAX_PAYLOAD_BYTES))
    for job_id in (str(run_id), direct.job_id):
        assert await redis.strlen(wire.JOB_KEY + job_id) == measured
        assert wire.read_job(await redis.get(wire.JOB_KEY + job_id))["k"] == request.payload()


async def test_what_an_operator_replays_is_put_there_by_its_id(redis: Any) -> None:
    run_id = await enqueued(age=timedelta(hours=1))
    given = await admitted("ada", run_id=run_id)
    await ledger.finish(given, Outcome("failed", error={"type": "E", "message": "m"}))
    assert await dispatch.dispatch_runs(redis, KINDS, [run_id]) == 0
    async with get_async_session() as session:
        await run_actions.replay(session, run_id)
    assert await dispatch.dispatch_runs(redis, KINDS, [run_id]) == 1
    assert await queued(redis) == [run_id]


async def test_comparing_goes_on_where_it_stopped(redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "PAGE_RUNS", 2)
    run_ids = sorted([await enqueued() for _ in range(7)])
    assert await look(redis) == 7
    await redis.flushdb()
    after, steps = due_runs.FIRST_ID, list[tuple[int, Sequence[UUID]]]()
    while not steps or after != due_runs.FIRST_ID:
        count, after = await reconcile.reconcile(redis, wanted(), after=after, most=3)
        steps.append((count, await queued(redis)))
    assert steps == [(4, run_ids[:4]), (3, run_ids)]
    assert await reconcile.reconcile(redis, wanted()) == (0, due_runs.FIRST_ID)


async def look_and_note(redis: Any, watch: reconcile.RedisWatch) -> list[str]:
    """As a worker does: returns the queues that had to be compared."""
    lost = (await watch.look(redis)).lost
    for queue, identity in lost.items():
        await watch.note(redis, queue, identity)
    return list(lost)


async def test_redis_is_compared_again_when_it_is_empty_or_another(redis: Any) -> None:
    watch = reconcile.RedisWatch([QUEUE], KINDS)
    assert await look_and_note(redis, watch) == [QUEUE]
    assert await look_and_note(redis, watch) == []
    assert await look_and_note(redis, reconcile.RedisWatch([QUEUE], KINDS)) == []  # nor has any other worker to do it
    await redis.flushdb()
    assert await look_and_note(redis, watch) == [QUEUE]
    # As a replica is that takes over: it has the contents, or those of a moment ago, and a replication id of its own.
    key = QUEUE + reconcile.COMPARED_SUFFIX
    for field, value in (await redis.hgetall(key)).items():
        await redis.hset(key, field, b"0" * 40 + value[40:] if b" " in value else value)
    assert await look_and_note(redis, watch) == [QUEUE]
    assert await look_and_note(redis, watch) == []


async def test_each_worker_compares_its_own_kinds_and_queues(redis: Any) -> None:
    watches = [
        reconcile.RedisWatch([QUEUE], ["one"]),
        reconcile.RedisWatch([QUEUE], ["two"]),
        reconcile.RedisWatch([QUEUE, "other"], ["one"]),
    ]
    assert [await look_and_note(redis, watch) for watch in watches] == [[QUEUE], [QUEUE], ["other"]]
    await redis.flushdb()
    assert [await look_and_note(redis, watch) for watch in watches] == [[QUEUE], [QUEUE], ["other"]]
    assert [await look_and_note(redis, watch) for watch in watches] == [[], [], []]


async def test_what_is_lost_while_the_ledger_is_compared_is_compared_again(redis: Any) -> None:
    watch = reconcile.RedisWatch([QUEUE], KINDS)
    lost = (await watch.look(redis)).lost
    await redis.flushdb()
    await watch.note(redis, QUEUE, lost[QUEUE])
    assert await look_and_note(redis, watch) == [QUEUE]
    assert await look_and_note(redis, watch) == []


async def test_the_databases_clock_goes_on_between_two_questions() -> None:
    clock = DatabaseClock()
    first = await clock.now()
    assert abs(first - datetime.now(UTC)) < timedelta(seconds=10)
    assert first < await clock.now() < first + timedelta(seconds=10)


async def test_what_runs_and_what_is_due_is_counted_by_kind() -> None:
    await admitted("ada", run_id=await enqueued())
    for kind in ("import_tasks", "import_tasks", "unknown"):
        run_id = await enqueued()
        async with get_async_session() as session:
            await session.execute(update(job_runs).where(job_runs.c.id == run_id).values(kind=kind))
    await enqueued(at=datetime.now(UTC) + timedelta(hours=1))
    async with get_async_session(read_only=True) as session:
        counted = await due_runs.count_due(session, QUEUE)
        assert await due_runs.count_due(session, "another") == []
    expected = {("import_tasks", "running", 1), ("import_tasks", "waiting", 2), ("unknown", "waiting", 1)}
    assert {tuple(row) for row in counted} == expected
