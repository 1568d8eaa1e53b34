"""The heartbeats' rows: who is remembered, and for how long."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from db.connection import DatabaseManager, get_async_session
from db.models import WorkerHeartbeat, WorkerState
from db.repositories import job_run, worker_heartbeat
from db.repositories.worker_heartbeat import SeenWorker, WorkerIdentity
from db.settings import DatabaseSettings
from tests.databases.runs import admitted, heartbeat
from worker.heartbeat import REMEMBERED_S, Heartbeat
from worker.settings import Settings


async def age(worker_id: str, seconds: float) -> None:
    async with get_async_session() as session:
        then = await job_run.database_now(session) - timedelta(seconds=seconds)
        beats = update(WorkerHeartbeat).where(WorkerHeartbeat.worker_id == worker_id)
        await session.execute(beats.values(heartbeat_at=then))


async def known() -> set[str]:
    async with get_async_session(read_only=True) as session:
        return set((await session.execute(select(WorkerHeartbeat.worker_id))).scalars())


@pytest.fixture
async def three_workers(manager: DatabaseManager) -> None:
    await heartbeat("alive", "silent", "long dead")
    await age("silent", REMEMBERED_S - 60)
    await age("long dead", REMEMBERED_S + 60)


@pytest.mark.usefixtures("three_workers")
async def test_only_the_long_dead_are_forgotten() -> None:
    async with get_async_session() as session:
        await worker_heartbeat.forget_silent(session, silent_s=REMEMBERED_S)
    assert await known() == {"alive", "silent"}


@pytest.mark.usefixtures("three_workers")
async def test_a_beating_worker_forgets_them(settings: DatabaseSettings) -> None:
    beats = Heartbeat(Settings.model_validate(settings.model_dump()), "beating", lambda: WorkerState.READY)
    await beats.start()
    try:
        for _ in range(200):
            if "long dead" not in (found := await known()):
                break
            await asyncio.sleep(0.05)
        assert found == {"alive", "silent", "beating"}
    finally:
        await beats.stop()
    assert await known() == {"alive", "silent"}


async def seen(worker_id: str) -> SeenWorker:
    async with get_async_session(read_only=True) as session:
        found = await worker_heartbeat.list_workers(session, timeout_s=15)
    return next(worker for worker in found if worker.heartbeat.worker_id == worker_id)


@pytest.mark.usefixtures("manager")
async def test_a_state_lasts_from_its_first_sign_of_life_on() -> None:
    worker, sinces = WorkerIdentity("w", "here", 1, "home", ("high", "low")), []
    for state in (WorkerState.STARTING, WorkerState.READY, WorkerState.READY, WorkerState.DRAINING):
        async with get_async_session() as session:
            await worker_heartbeat.beat(session, worker, state)
        found = await seen("w")
        assert (found.heartbeat.state, found.heartbeat.queues, found.is_alive) == (state.value, ["high", "low"], True)
        sinces.append(found.since)
    starting, ready, still_ready, draining = sinces
    assert starting < ready == still_ready < draining


@pytest.mark.usefixtures("manager")
async def test_the_silent_are_dead_and_all_have_their_runs_counted() -> None:
    await heartbeat("alive", "silent")
    await age("silent", 16)
    for worker_id in ("alive", "silent", "silent"):
        await admitted(worker_id)
    alive, silent = await seen("alive"), await seen("silent")
    assert (alive.is_alive, alive.running, silent.is_alive, silent.running) == (True, 1, False, 2)
    assert alive.silent_s < 15 < silent.silent_s


async def test_a_sign_of_life_that_failed_unforeseen_is_not_the_last(
    manager: DatabaseManager, settings: DatabaseSettings
) -> None:
    answers = iter(list[WorkerState | Exception]([WorkerState.STARTING, RuntimeError("nobody has thought of it")]))

    def state() -> WorkerState:
        answer = next(answers, WorkerState.READY)
        if isinstance(answer, Exception):
            raise answer
        return answer

    beats = Heartbeat(Settings.model_validate(settings.model_dump() | {"heartbeat_interval_s": 0.1}), "w", state)
    await beats.start()
    try:
        async with asyncio.timeout(30):
            while (await seen("w")).heartbeat.state != WorkerState.READY.value:  # noqa: ASYNC110 - a thread writes it
                await asyncio.sleep(0.01)
    finally:
        await beats.stop()
    assert await known() == set()


async def test_a_change_is_written_at_once(manager: DatabaseManager, settings: DatabaseSettings) -> None:
    seldom = Settings.model_validate(settings.model_dump() | {"heartbeat_interval_s": 60})
    states = [WorkerState.STARTING]
    beats = Heartbeat(seldom, "w", lambda: states[-1])
    await beats.start()
    try:
        for state in (WorkerState.READY, WorkerState.DRAINING):
            states.append(state)
            beats.beat_now()
            async with asyncio.timeout(10):
                while (await seen("w")).heartbeat.state != state.value:  # noqa: ASYNC110 - a thread writes it
                    await asyncio.sleep(0.01)
    finally:
        await beats.stop()
    assert await known() == set()
