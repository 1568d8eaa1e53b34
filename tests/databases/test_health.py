"""Whether the database answers, and how busy the pool is."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from db.connection import (
    DatabaseManager,
    check_database_health,
    close_database,
    database_is_open,
    database_lifespan,
    get_async_session,
)
from db.errors import DatabaseUnavailable
from db.settings import DatabaseSettings
from tests.servers import PostgresServer, free_port


@pytest.fixture
def small(settings: DatabaseSettings) -> DatabaseSettings:
    """A pool of one connection."""
    few = {"database_pool_size": 1, "database_max_overflow": 0, "database_pool_timeout": 5.0}
    return settings.model_copy(update=few)


async def test_a_healthy_database(manager: DatabaseManager) -> None:
    health = await check_database_health()
    assert health["status"] == "healthy"
    assert health["connected"]
    assert health["database_url"] == manager.engine.url.render_as_string()
    assert health["round_trip_ms"] is not None
    assert 0 < health["round_trip_ms"] < 5000
    assert "error" not in health
    assert "replica" not in health
    assert health["pool"]["checked_out"] == 0
    assert health["pool"]["idle"] >= 1
    json.dumps(health)


async def test_without_a_pool() -> None:
    health = await check_database_health()
    assert (health["status"], health["connected"], health["database_url"]) == ("unhealthy", False, None)
    assert health["error"] == "no connection pool: await initialize_database() first"


async def test_no_password_is_shown_and_the_cause_is() -> None:
    url = f"postgresql://ada:canary-91@127.0.0.1:{free_port()}/tasks?password=canary-91"
    manager = DatabaseManager(DatabaseSettings(database_url=url, _env_file=None))
    health = await manager.health_check()
    await manager.close()
    assert (health["status"], health["connected"], health["round_trip_ms"]) == ("unhealthy", False, None)
    assert "refused" in health["error"].lower() or "connect" in health["error"].lower()
    assert "canary" not in json.dumps(health)
    assert "ada:***@127.0.0.1" in str(health["database_url"])


@pytest.fixture
def paused_server(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    yield postgres_server
    postgres_server.resume()


async def test_a_database_that_does_not_answer_is_waited_for_so_long_only(
    migrated_postgresql: str, paused_server: PostgresServer
) -> None:
    manager = DatabaseManager(DatabaseSettings(database_url=migrated_postgresql, _env_file=None))
    await manager.connect()
    paused_server.pause()
    health = await manager.health_check(timeout_s=0.3)
    paused_server.resume()
    await manager.close()
    assert health["error"] == "no answer within 0.3 s"


async def test_who_waits_for_the_pool_is_counted(small: DatabaseSettings) -> None:
    manager = DatabaseManager(small)
    held, give_back = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with manager.session(read_only=True) as session:
            await session.connection()
            held.set()
            await give_back.wait()

    async def use() -> None:
        async with manager.reader():
            pass

    holder = asyncio.create_task(hold())
    await held.wait()
    waiter = asyncio.create_task(use())
    while manager.pool_figures().waits == 0:  # noqa: ASYNC110 - the pool tells nobody
        await asyncio.sleep(0)
    assert manager.pool_figures().checked_out == 1
    give_back.set()
    await asyncio.gather(holder, waiter)
    figures = manager.pool_figures()
    assert (figures.size, figures.max_overflow, figures.checked_out, figures.idle) == (1, 0, 0, 1)
    assert (figures.waits, figures.timeouts) == (1, 0)
    assert figures.waited_s > 0
    await use()
    assert manager.pool_figures().waits == 1
    await manager.close()


async def test_who_gives_the_wait_up_is_counted(small: DatabaseSettings) -> None:
    manager = DatabaseManager(small.model_copy(update={"database_pool_timeout": 0.05}))
    async with manager.reader():
        with pytest.raises(PoolTimeoutError):
            async with manager.reader():
                pass
        health = await manager.health_check(timeout_s=10)
    assert health["status"] == "unhealthy"
    assert "QueuePool limit" in health["error"]
    assert manager.pool_figures().timeouts == 2
    await manager.close()


async def test_a_lifespan_opens_and_closes_the_pool(settings: DatabaseSettings) -> None:
    async with database_lifespan(settings=settings):
        assert database_is_open()
        async with get_async_session():
            pass
    assert not database_is_open()


async def test_a_lifespan_that_cannot_connect_says_so() -> None:
    url = f"postgresql://127.0.0.1:{free_port()}/tasks"
    lifespan = database_lifespan(settings=DatabaseSettings(database_url=url, _env_file=None), patience_s=0)
    with pytest.raises(DatabaseUnavailable):
        await lifespan.__aenter__()
    assert not database_is_open()
    await close_database()
