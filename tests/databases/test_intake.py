"""Direct enqueues are entered into the ledger while they wait, from the list that producers write."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis
from sqlalchemy import func, select

from db.connection import DatabaseManager, get_async_session
from db.repositories.due_runs import FIRST_ID
from db.repositories.job_run import BornRun
from db.settings import DatabaseSettings
from holdfast import wire
from holdfast.client import Client
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from holdfast.requests import ImportTasks
from holdfast.states import RunState
from tests.databases.runs import QUEUE, admitted, born, born_again, move_everything, run_of, vitals, wanted
from worker import intake, ledger, reconcile
from worker.ledger import Admitted, AlreadyOver
from worker.retries import Outcome
from worker.runtime import Runtime
from worker.served_queues import ServedQueue
from worker.settings import Settings

pytestmark = pytest.mark.usefixtures("manager")

INTAKE = QUEUE + wire.INTAKE_SUFFIX
KINDS = ("import_tasks",)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(redis_url) as made:
        yield made


async def announce(redis: Any, *runs: BornRun) -> None:
    """As producers do."""
    for run in runs:
        payload = wire.job_payload(run.kind, run.request, milliseconds(run.enqueued_at), unique_key=run.unique_key)
        await redis.set(wire.JOB_KEY + run.job_id, payload)
        await redis.rpush(INTAKE, run.job_id)


async def take_in(redis: Any, kinds: Sequence[str] = KINDS) -> int:
    """As a worker does."""
    sight = await reconcile.RedisWatch([QUEUE], KINDS).look(redis)
    return (await intake.take_in(redis, QUEUE, sight.announced.get(QUEUE, ()), kinds, light=["light"])).entered


def milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


async def count_runs() -> int:
    async with get_async_session(read_only=True) as session:
        return (await session.execute(select(func.count()).select_from(job_runs))).scalar_one()


def test_a_payload_tells_its_run() -> None:
    run = born(unique_key="k")
    payload = wire.job_payload(run.kind, run.request, milliseconds(run.enqueued_at), unique_key="k")
    assert intake.read_born(QUEUE, run.job_id.encode(), payload) == run
    for raw_id, broken in (
        (b"\xff", payload),
        (b"x" * 256, payload),
        (b"x\x00", payload),
        (b"x", b"\x80\x04pickle"),
        (b"x", b"{}"),
    ):
        assert intake.read_born(QUEUE, raw_id, broken) is None


async def test_what_the_client_enqueues_is_entered_and_admitted_as_the_same_run(redis: Any, redis_url: str) -> None:
    async with Client(redis_url) as client:
        handle = await client.enqueue(ImportTasks(source="/imports/tasks.csv"), unique_key="k")
    assert await take_in(redis) == 1
    run = await run_of(UUID(str(handle.id)))
    assert (run.state, run.fence, run.kind, run.unique_key) == ("waiting", 0, "import_tasks", "k")
    assert run.dispatched_at is not None
    again = await ledger.admit(await born_again(run.id), vitals("ada"), active_here=())
    assert again == Admitted(run.id, 1, 1)
    assert await take_in(redis) == 0


async def test_a_run_that_is_due_later_stays_so_when_redis_is_lost(redis: Any, redis_url: str) -> None:
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    async with Client(redis_url) as client:
        later = await client.enqueue(ImportTasks(source="/imports/later.csv"), at=due)
        now = await client.enqueue(ImportTasks(source="/imports/now.csv"))
    assert await take_in(redis) == 2
    assert (await run_of(UUID(str(later.id)))).due_at == due
    await redis.flushdb()
    assert await reconcile.reconcile(redis, wanted()) == (1, FIRST_ID)
    assert await redis.zrange(QUEUE, 0, -1) == [str(now.id).encode()]


async def test_more_than_one_page_and_each_once(redis: Any) -> None:
    known, twice = born(), born()
    await admitted("ada", born_run=known)
    runs = [born() for _ in range(600)]
    await announce(redis, known, twice, *runs, twice)
    await redis.rpush(INTAKE, "gone", b"\xff")
    await redis.set(wire.JOB_KEY + "broken", b"{")
    await redis.rpush(INTAKE, "broken")
    assert await take_in(redis) == 601
    assert await count_runs() == 602
    assert await redis.exists(INTAKE) == 0
    assert (await run_of(UUID(known.job_id))).state == "running"
    await announce(redis, *runs[:3])
    assert await take_in(redis) == 0


async def test_a_reused_id_gets_a_run_of_its_own(redis: Any) -> None:
    first = born(str(uuid7()))
    await ledger.finish(await admitted("ada", born_run=first), Outcome("succeeded", report={}))
    second = born(first.job_id, at=first.enqueued_at + timedelta(seconds=1))
    await announce(redis, second, born())
    assert await take_in(redis) == 2
    given = await admitted("ada", born_run=second)
    assert (given.fence, str(given.run_id) != first.job_id) == (1, True)


async def test_what_an_old_redis_announces_again_is_not_begun_again(redis: Any) -> None:
    """Redis came back from an old snapshot: its runs are over, and have left for the history."""
    old = UUID(int=uuid7().int - (3_600_000 << 80))
    run = born(str(old), at=datetime.now(UTC) - timedelta(hours=1))
    report = {"rows_read": 1}
    await ledger.finish(await admitted("ada", born_run=run), Outcome("succeeded", report=report))
    assert await move_everything() == 1
    fresh, reused = born(), born(str(old))
    await announce(redis, run, fresh)
    assert await take_in(redis) == 1
    assert await count_runs() == 1
    end = await ledger.admit(run, vitals("ada"), active_here=())
    assert end == AlreadyOver(old, RunState.SUCCEEDED, report, None)
    await announce(redis, reused)
    assert await take_in(redis) == 1
    assert (await admitted("ada", born_run=reused)).run_id != old


async def test_one_that_the_database_refuses_hinders_no_other(redis: Any, manager: DatabaseManager) -> None:
    bad, good = born(), [born(), born()]
    bad = BornRun("k" * 101, QUEUE, bad.job_id, bad.enqueued_at, {})
    await announce(redis, good[0], bad, good[1])
    minds_lengths = manager.engine.dialect.name != "sqlite"
    assert await take_in(redis, [*KINDS, bad.kind]) == 3 - minds_lengths
    assert [(await run_of(UUID(run.job_id))).state for run in good] == ["waiting", "waiting"]


async def test_what_this_worker_would_not_run_is_left_to_whoever_claims_it(redis: Any) -> None:
    run, large = born(), born()
    unknown = BornRun("no_such_kind", QUEUE, born().job_id, run.enqueued_at, {})
    large = replace(large, request={"source": "x" * wire.MAX_PAYLOAD_BYTES})
    await announce(redis, large, unknown, run)
    await redis.rpush(INTAKE, "list", "missing")
    await redis.rpush(wire.JOB_KEY + "list", "of another type")
    assert await take_in(redis) == 1
    assert (await run_of(UUID(run.job_id))).state == RunState.WAITING
    assert await count_runs() == 1


async def test_what_is_of_an_unknown_kind_and_waits_is_left_to_a_worker_that_knows_it(redis: Any) -> None:
    ours, new, light, claimed = (
        replace(born(), kind=kind) for kind in ("import_tasks", "new_kind", "light", "new_kind")
    )
    await announce(redis, new, ours, light, claimed)
    await redis.zadd(QUEUE, {new.job_id: 10**15, light.job_id: 10**15})
    assert await take_in(redis) == 1
    assert await redis.lrange(INTAKE, 0, -1) == [new.job_id.encode()]
    assert await take_in(redis, ["new_kind"]) == 1
    assert (await run_of(UUID(new.job_id))).kind == "new_kind"
    assert await redis.exists(INTAKE) == 0


async def test_many_of_unknown_kinds_do_not_keep_those_that_are_known_from_the_ledger(redis: Any) -> None:
    unknown, known = [replace(born(), kind="new_kind") for _ in range(1200)], [born() for _ in range(600)]
    await announce(redis, *unknown, *known)
    await redis.zadd(QUEUE, {run.job_id: 10**15 for run in unknown})
    assert await take_in(redis) == 600
    assert await redis.llen(INTAKE) == 1200
    later = born()
    await announce(redis, later)
    assert await take_in(redis) == 1
    assert await redis.llen(INTAKE) == 1200


async def test_one_that_is_left_is_counted_once(redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "AT_ONCE", 4)
    unknown = [replace(born(), kind="new_kind") for _ in range(5)]
    await announce(redis, *unknown, *(born() for _ in range(5)))
    await redis.zadd(QUEUE, {run.job_id: 10**15 for run in unknown})
    ids = await redis.rpop(INTAKE, 10)
    assert await intake.take_in(redis, QUEUE, ids, KINDS) == intake.TakenIn(entered=5, left=5)
    assert await redis.llen(INTAKE) == 5


async def test_a_database_that_is_away_costs_no_announcement(
    redis: Any, redis_url: str, settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look takes those of all queues off their lists, before it knows whether they can be entered."""
    served = {"queues": (ServedQueue("high"), ServedQueue("low")), "redis_url": redis_url}
    runtime = Runtime(Settings.model_validate(settings.model_dump() | served), owns_queue=False)
    runtime.redis = redis
    lists = [queue + wire.INTAKE_SUFFIX for queue in runtime.queues]
    for at in lists:
        await redis.rpush(at, "run")

    def fail(*_arguments: Any) -> None:
        raise ConnectionResetError("no answer")

    for module, name in ((reconcile, "reconcile"), (intake, "_look_up")):
        with monkeypatch.context() as away:
            away.setattr(module, name, fail)
            with pytest.raises(ConnectionResetError, match="no answer"):
                await runtime.upkeep._look_at_redis()
        assert [await redis.lrange(at, 0, -1) for at in lists] == [[b"run"], [b"run"]]
    await runtime.upkeep._look_at_redis()
    assert await redis.exists(*lists) == 0


async def test_announcements_are_read_in_groups_that_fit_into_memory(redis: Any) -> None:
    runs = [replace(born(), request={"source": "x" * 900_000}) for _ in range(20)]
    await announce(redis, *runs)
    ids = [run.job_id.encode() for run in runs]
    groups = intake._look_up(redis, QUEUE, ids, wire.MAX_PAYLOAD_BYTES)
    assert [len(group) async for group in groups] == [9, 9, 2]
    assert await take_in(redis) == len(runs)


@pytest.mark.parametrize("busy", [True, False])
async def test_a_long_list_waits_as_the_worker_is_busy(redis: Any, monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    monkeypatch.setattr(intake, "AT_ONCE", 2)
    monkeypatch.setattr(intake, "BUSY_REST" if busy else "REST", 0.0)
    monkeypatch.setattr(intake, "REST" if busy else "BUSY_REST", 1e9)  # it would never end
    runs = [born() for _ in range(5)]
    await announce(redis, *runs)
    first = await redis.rpop(INTAKE, 2)
    async with asyncio.timeout(30):
        taken = await intake.take_in(redis, QUEUE, first, KINDS, is_busy=lambda: busy)
    assert taken.entered == 5
