"""The throttle: when a run is held up, for how long, and that it can be stopped meanwhile."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from db.connection import DatabaseManager, get_async_session
from db.models import Task
from holdfast.outbox import job_runs, utc_now
from jobs import throttle as throttle_module
from jobs.context import RunContext
from jobs.outcomes import FenceLost, JobCancelled, RunInterrupted
from jobs.settings import JobSettings
from jobs.throttle import Pressure, Throttle
from tests.archive.runs import archive, context_of, make_tasks
from tests.databases.runs import admitted


class Scripted(Throttle):
    """Sees what it is told to see, one look after the other, and nothing after that."""

    def __init__(self, context: RunContext, *seen: Pressure) -> None:
        super().__init__(context, look_s=0.0)
        self.left = list(seen)

    async def look(self) -> Pressure:
        return self.left.pop(0) if self.left else Pressure()


@pytest.fixture
async def context(manager: DatabaseManager, job_settings: JobSettings) -> RunContext:
    del manager
    return context_of(await admitted("ada"), job_settings)


@pytest.mark.parametrize(
    ("pressure", "reason"),
    [
        (Pressure(lock_waits=5), "locks"),
        (Pressure(replica_lag_s=5.1), "replica_lag"),
        (Pressure(free_connections=0), "pool"),
    ],
)
async def test_it_pauses_until_there_is_room_again(context: RunContext, pressure: Pressure, reason: str) -> None:
    throttle = Scripted(context, pressure, pressure)
    await throttle.hold()
    assert throttle.left == []
    assert throttle.pauses == {reason: 1}
    assert throttle.paused_s >= 0.3


async def test_it_does_not_pause_for_less(context: RunContext) -> None:
    throttle = Scripted(context, Pressure(lock_waits=4, replica_lag_s=5.0, free_connections=1))
    await throttle.hold()
    assert (throttle.pauses, throttle.paused_s) == ({}, 0.0)


@pytest.mark.parametrize("connections", [1, 2])
async def test_a_run_that_is_to_end_is_not_held_up_for_longer(
    connections: int, job_settings: JobSettings, manager: DatabaseManager
) -> None:
    del manager
    await make_tasks(5, deleted=range(5))
    settings = job_settings.model_copy(update={"throttle_free_connections": 1000})
    until = datetime.now(UTC) + timedelta(seconds=0.3)
    async with asyncio.timeout(10):
        report = await archive(settings, until=until, connections=connections)
    assert (report.ended_by, report.left) == ("until", {"tasks": 5})


async def test_it_leaves_time_to_others_that_are_at_work(context: RunContext) -> None:
    throttle = Scripted(context, Pressure(others_per_s=100))
    await throttle.hold()
    began = time.monotonic()
    assert throttle.share == 0.25
    await throttle.rest(0.1)
    assert time.monotonic() - began >= 0.29
    assert throttle.pauses == {}
    assert 0.29 <= throttle.paused_s < 10


async def test_a_worker_that_is_to_stop_does_not_rest_for_long(
    job_settings: JobSettings, manager: DatabaseManager
) -> None:
    del manager
    told = asyncio.Event()
    context = context_of(await admitted("ada"), job_settings, should_stop=told.is_set)
    throttle = Scripted(context, Pressure(others_per_s=100))
    await throttle.hold()
    asyncio.get_running_loop().call_later(0.2, told.set)
    async with asyncio.timeout(10):
        await throttle.rest(60.0)
    assert 0.2 <= throttle.paused_s < 10


@pytest.mark.parametrize(("limit", "others"), [(100, 99), (0, 1000)])
async def test_it_does_not_rest_for_less(
    job_settings: JobSettings, manager: DatabaseManager, limit: int, others: int
) -> None:
    del manager
    settings = job_settings.model_copy(update={"throttle_others_per_s": limit})
    throttle = Scripted(context_of(await admitted("ada"), settings), Pressure(others_per_s=others))
    await throttle.hold()
    await throttle.rest(60.0)
    assert throttle.paused_s == 0.0


async def test_transactions_of_others_are_seen_and_its_own_are_not(
    context: RunContext, manager: DatabaseManager
) -> None:
    throttle = Throttle(context)
    await throttle.look()
    began = time.monotonic()
    await change_often(context.run_id, 200)
    seen = (await throttle.look()).others_per_s
    assert seen == 0 if manager.writers_take_turns else seen > 100 / (time.monotonic() - began)
    await change_often(context.run_id, 200)
    throttle.committed(1_000_000)
    assert (await throttle.look()).others_per_s == 0


async def change_often(run_id: UUID, times: int) -> None:
    for number in range(times):
        await change_run(run_id, counters={"batches": number})


async def test_it_looks_twice_a_second_at_most(context: RunContext) -> None:
    looks = 0

    class Counting(Throttle):
        async def look(self) -> Pressure:
            nonlocal looks
            looks += 1
            return Pressure()

    throttle = Counting(context, look_s=60.0)
    for _ in range(5):
        await throttle.hold()
    assert looks == 1


async def test_only_the_first_look_is_soon_followed_by_another(
    context: RunContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle_module, "SECOND_LOOK_S", 0.01)
    looks = 0

    class Counting(Throttle):
        async def look(self) -> Pressure:
            nonlocal looks
            looks += 1
            return await super().look()

    throttle = Counting(context, look_s=60.0)
    for _ in range(5):
        await throttle.hold()
        await asyncio.sleep(0.02)
    assert looks == 2


async def test_a_worker_that_is_to_stop_does_not_wait(job_settings: JobSettings, manager: DatabaseManager) -> None:
    del manager
    context = context_of(await admitted("ada"), job_settings, should_stop=lambda: True)
    with pytest.raises(RunInterrupted):
        await Scripted(context, Pressure(lock_waits=9)).hold()


async def change_run(run_id: UUID, **values: object) -> None:
    async with get_async_session() as session:
        await session.execute(update(job_runs).where(job_runs.c.id == run_id).values(**values))


async def test_a_cancelled_run_ends_in_its_pause(context: RunContext) -> None:
    await change_run(context.run_id, cancel_requested_at=utc_now())
    with pytest.raises(JobCancelled):
        await Scripted(context, *[Pressure(lock_waits=9)] * 100).hold()


async def test_an_overtaken_run_ends_in_its_pause(context: RunContext) -> None:
    await change_run(context.run_id, fence=context.fence + 1)
    with pytest.raises(FenceLost):
        await Scripted(context, *[Pressure(lock_waits=9)] * 100).hold()


async def test_sessions_that_wait_for_locks_are_seen(context: RunContext, manager: DatabaseManager) -> None:
    if manager.writers_take_turns:
        room = manager.settings.database_pool_size + manager.settings.database_max_overflow
        assert await Throttle(context).look() == Pressure(free_connections=room)
        return
    (task,) = await make_tasks(1)

    async def wait_for_the_lock() -> None:
        async with get_async_session() as session:
            await session.execute(select(Task).where(Task.id == task).with_for_update())

    async with get_async_session() as session:
        await session.execute(select(Task).where(Task.id == task).with_for_update())
        waiting = [asyncio.create_task(wait_for_the_lock()) for _ in range(2)]
        throttle = Throttle(context)
        seen = await until_two_wait(throttle)
        room = manager.settings.database_pool_size + manager.settings.database_max_overflow
        assert seen.free_connections == room - 3  # two wait, one has what they wait for
    await asyncio.gather(*waiting)
    assert (await throttle.look()).lock_waits == 0


async def until_two_wait(throttle: Throttle) -> Pressure:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if (seen := await throttle.look()).lock_waits >= 2:
            return seen
        await asyncio.sleep(0.05)
    raise AssertionError("nobody was seen waiting")


async def test_a_replica_that_does_not_know_the_last_batches_lags(
    manager: DatabaseManager, job_settings: JobSettings, tmp_path: Path
) -> None:
    """The replica is the database itself here, whose row says what we let it know."""
    del manager
    url = SecretStr(f"sqlite:///{tmp_path / 'replica.db'}")
    settings = job_settings.model_copy(update={"database_replica_url": url})
    context = context_of(await admitted("ada"), settings)
    throttle = Throttle(context)
    await change_run(context.run_id, counters={"batches": 6})
    throttle.committed(6)
    assert (await throttle.look()).replica_lag_s == 0.0
    throttle.committed(7)
    throttle.committed(8)
    await asyncio.sleep(0.05)
    assert (await throttle.look()).replica_lag_s >= 0.05
    await change_run(context.run_id, counters={"batches": 8})
    assert (await throttle.look()).replica_lag_s == 0.0
