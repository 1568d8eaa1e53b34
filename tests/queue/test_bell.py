"""The outbox rings after the commit: an idle worker starts at once, and no producer is held up by it."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db import migrate
from db.connection import DatabaseManager
from db.settings import DatabaseSettings
from holdfast import Client, ImportTasks, outbox
from holdfast.bell import GATHER_S, Bell
from holdfast.connection import QueueConnection
from tests.queue.workplace import PATIENCE_S, Workplace
from tests.servers import free_port

BELL = "arq:queue:bell"
REQUEST = ImportTasks(source="/imports/tasks.csv")
SELDOM_S = 60.0

Maker = async_sessionmaker[AsyncSession]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Any]:
    async with Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[Maker]:
    """A producer's own sessions."""
    settings = DatabaseSettings(_env_file=None, database_url=SecretStr(database_url))
    await migrate.upgrade(settings)
    manager = DatabaseManager(settings)
    yield async_sessionmaker(manager.engine, info={"mine": 1})
    await manager.close()


async def rings(redis: Any, bell: str = BELL) -> int:
    return int(await redis.get(bell) or 0)


async def rung(redis: Any, bell: str = BELL) -> int:
    """How often it has rung, once it has."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await rings(redis, bell)):  # noqa: ASYNC110 - Redis tells nobody here
            await asyncio.sleep(0.005)
    return found


async def test_a_commit_rings_and_nothing_else_does(sessions: Maker, redis: Any, redis_url: str) -> None:
    async with Client(redis_url) as client:
        outbox.ring_after_commit(sessions, client)
        async with sessions() as session:
            assert session.info["mine"] == 1
            await outbox.enqueue(session, REQUEST)
            await session.rollback()
        async with sessions.begin() as session:
            await session.execute(text("SELECT 1"))
        async with sessions() as session:
            async with session.begin_nested():
                await outbox.enqueue(session, REQUEST)
            await session.rollback()
    assert await rings(redis) == 0
    async with Client(redis_url) as client:
        outbox.ring_after_commit(sessions, client)
        async with sessions() as session:
            async with session.begin_nested():
                await outbox.enqueue(session, REQUEST)
            await outbox.enqueue(session, REQUEST, queue="other")
            assert await rings(redis) == 0
            await session.commit()
            assert await rung(redis) == await rung(redis, "other:bell") == 1
            await session.execute(text("SELECT 1"))
            await session.commit()
            await outbox.enqueue(session, REQUEST)
            await session.commit()
    assert await rings(redis) == 2
    assert await rings(redis, "other:bell") == 1


async def test_one_session_may_ring_alone(sessions: Maker, redis: Any, redis_url: str) -> None:
    async with Client(redis_url) as client, sessions() as loud, sessions() as quiet:
        outbox.ring_after_commit(loud, client)
        await outbox.enqueue(quiet, REQUEST)
        await quiet.commit()
        await outbox.enqueue(loud, REQUEST)
        await loud.commit()
    assert await rings(redis) == 1


async def test_many_commits_at_once_ring_few_times(redis: Any, redis_url: str) -> None:
    async with Client(redis_url) as client:
        for _ in range(1000):
            client.ring()
        assert await rung(redis) == 1
        for _ in range(1000):
            client.ring("other")
    assert await rings(redis) == 1
    assert await rings(redis, "other:bell") == 1


async def test_what_rings_during_the_rest_is_rung_after_it(redis: Any, redis_url: str) -> None:
    async with Client(redis_url) as client:
        client.ring()
        assert await rung(redis) == 1
        client.ring()
        async with asyncio.timeout(PATIENCE_S):
            while await rings(redis) < 2:  # noqa: ASYNC110 - Redis tells nobody here
                await asyncio.sleep(0.005)
        await asyncio.sleep(2 * GATHER_S)
        client.ring()  # and the next one at once: nothing rests any more
        async with asyncio.timeout(PATIENCE_S):
            while await rings(redis) < 3:  # noqa: ASYNC110 - Redis tells nobody here
                await asyncio.sleep(0.005)
    assert await rings(redis) == 3


async def test_a_ring_that_redis_does_not_hear_is_nobodys_trouble(sessions: Maker) -> None:
    """Nothing listens there, or somebody who never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (free_port(), silent.getsockname()[1]):
            async with Client(f"redis://127.0.0.1:{port}") as client:
                for _ in range(3):
                    async with sessions() as session:
                        outbox.ring_after_commit(session, client)
                        await outbox.enqueue(session, REQUEST)
                        await session.commit()
                began = time.monotonic()
            assert time.monotonic() - began < 3  # and not the client's four seconds for each
    async with sessions() as session:
        assert (await session.execute(text("SELECT count(*) FROM job_runs"))).scalar_one() == 6


async def test_a_client_closes_though_its_ring_was_cancelled() -> None:
    """As when a process ends and cancels all of its tasks while Redis does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"redis://127.0.0.1:{silent.getsockname()[1]}")
        client.ring()
        with (await asyncio.to_thread(silent.accept))[0] as connection:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await client.close()
            connection.settimeout(PATIENCE_S)
            while await asyncio.to_thread(connection.recv, 1024):  # to the end: the client has hung up
                pass


def test_a_bell_rings_on_though_its_loop_has_ended_meanwhile() -> None:
    calls = list[object]()

    class Counted(QueueConnection):
        async def pipeline(self, *commands: object) -> list[object]:
            calls.append(commands)
            return []

    bell = Bell(Counted("redis://127.0.0.1:1", queue="arq:queue", timeout_s=1.0))

    async def ring() -> None:
        bell.ring("arq:queue")
        await asyncio.sleep(0.001)  # less than it rests

    for _ in range(3):
        asyncio.run(ring())
    assert len(calls) == 3


def test_without_a_loop_nothing_rings(redis_url: str) -> None:
    Client(redis_url).ring()


async def test_an_idle_worker_starts_at_once(postgres_url: str, redis_url: str, tmp_path: Path) -> None:
    """It looks for runs once a minute here, so that only the ring can be what wakes it."""
    await migrate.upgrade(DatabaseSettings(_env_file=None, database_url=SecretStr(postgres_url)))
    place = Workplace(redis_url, tmp_path, postgres_url)
    with place.started_worker(DISPATCH_INTERVAL_S=str(SELDOM_S)) as worker:
        async with Client(redis_url) as client, place.ledger() as ledger, asyncio.timeout(SELDOM_S / 2):
            sessions = async_sessionmaker(ledger.manager.engine)
            outbox.ring_after_commit(sessions, client)
            for _ in range(3):
                async with sessions.begin() as session:
                    run_id = await outbox.enqueue(session, place.import_request())
                await ledger.until(run_id, "succeeded")
            async with ledger.manager.engine.begin() as connection:
                run_id = await outbox.enqueue(connection, place.import_request())
            client.ring()
            await ledger.until(run_id, "succeeded")
        assert worker.terminate() == 0


def test_a_bell_of_a_wrong_type_is_put_out_of_the_way(redis_url: str, tmp_path: Path) -> None:
    place = Workplace(redis_url, tmp_path)
    with place.redis() as redis:
        redis.rpush(BELL, "not a counter")
        with place.started_worker() as worker:
            worker.wait_for(f"{BELL} had a wrong type")
            assert worker.terminate() == 0
        assert redis.type(f"{BELL}:damaged") == b"list"
