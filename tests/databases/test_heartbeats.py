"""The heartbeats' rows: who is remembered, and for how long."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from db.connection import DatabaseManager, get_async_session
from db.models import WorkerHeartbeat
from db.repositories import job_run, worker_heartbeat
from db.settings import DatabaseSettings
from tests.databases.runs import heartbeat
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
    beats = Heartbeat(Settings.model_validate(settings.model_dump()), "beating")
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
