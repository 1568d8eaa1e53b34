"""What a session promises: commit, rollback, close; and what a pool says that is not there."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest
from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import DatabaseManager, close_database, get_async_session, initialize_database
from db.errors import DatabaseNotInitialised, DatabaseUnavailable
from db.models import User
from db.settings import DatabaseSettings
from tests.servers import free_port

Opener = Callable[[], AbstractAsyncContextManager[AsyncSession]]


class Mishap(Exception):  # noqa: N818
    """Raised by the tests inside a session."""


async def count_users() -> int:
    async with get_async_session(read_only=True) as session:
        return (await session.execute(select(func.count()).select_from(User))).scalar_one()


def checked_out(manager: DatabaseManager) -> int:
    pool = manager.engine.pool
    return int(pool.checkedout())  # type: ignore[attr-defined]


async def test_a_clean_exit_commits(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        session.add(User(username="ada"))
    assert await count_users() == 1
    assert checked_out(manager) == 0


async def test_an_error_rolls_back_and_closes(manager: DatabaseManager) -> None:
    async def fail() -> None:
        async with get_async_session() as session:
            await session.execute(insert(User).values(username="ada"))
            raise Mishap

    with pytest.raises(Mishap):
        await fail()
    assert await count_users() == 0
    assert checked_out(manager) == 0


async def test_an_error_at_the_commit_rolls_back_and_closes(manager: DatabaseManager) -> None:
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        async with get_async_session() as session:
            session.add_all([User(username="ada"), User(username="ada")])
    assert await count_users() == 0
    assert checked_out(manager) == 0


async def test_a_cancellation_rolls_back_and_closes(manager: DatabaseManager) -> None:
    written = asyncio.Event()

    async def write_and_wait() -> None:
        async with get_async_session() as session:
            await session.execute(insert(User).values(username="ada"))
            written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write_and_wait())
    await written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await count_users() == 0
    assert checked_out(manager) == 0


async def test_a_cancellation_inside_a_statement_rolls_back_and_closes(manager: DatabaseManager) -> None:
    """The first writer holds the row (on SQLite the database); the second one is cancelled while it waits for it."""
    async with manager.engine.connect() as holder:  # on SQLite as another process: it does not wait in line
        await holder.execute(insert(User).values(username="ada"))

        async def wait_for_the_lock() -> None:
            async with get_async_session() as session:
                await session.execute(insert(User).values(username="ada"))

        task = asyncio.create_task(wait_for_the_lock())
        while checked_out(manager) < 2:  # noqa: ASYNC110 - the pool tells nobody
            await asyncio.sleep(0)
        task.cancel()
        await holder.rollback()  # frees SQLite's thread, in which the cancelled statement would wait on
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await count_users() == 0
    assert checked_out(manager) == 0


async def test_objects_can_be_read_after_the_commit(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        user = User(username="ada")
        session.add(user)
    assert user.username == "ada"
    assert user.created_at.tzinfo is not None


async def test_a_reader_needs_no_write_lock(manager: DatabaseManager) -> None:
    """On SQLite too: one writer is in the middle of its transaction, and a read-only session does not wait for it."""
    async with get_async_session() as writer:
        await writer.execute(insert(User).values(username="ada"))
        async with asyncio.timeout(10):
            assert await count_users() == 0
    assert await count_users() == 1


async def test_a_second_initialisation_gives_the_first_pool(manager: DatabaseManager) -> None:
    assert await initialize_database(DatabaseSettings(database_url=":memory:", _env_file=None)) is manager


async def test_the_servers_time_zone_and_modes(manager: DatabaseManager) -> None:
    query = {
        "postgresql": "SELECT current_setting('TimeZone')",
        "mariadb": "SELECT concat(@@session.time_zone, ' ', @@session.tx_isolation)",
        "sqlite": "PRAGMA foreign_keys",
    }[manager.engine.dialect.name]
    expected = {"postgresql": "UTC", "mariadb": "+00:00 READ-COMMITTED", "sqlite": 1}[manager.engine.dialect.name]
    async with get_async_session(read_only=True) as session:
        assert (await session.execute(text(query))).scalar_one() == expected


@pytest.mark.parametrize("opener", [get_async_session, lambda: get_async_session(read_only=True)])
async def test_without_a_pool_there_is_no_session(opener: Opener) -> None:
    with pytest.raises(DatabaseNotInitialised, match="await initialize_database"):
        async with opener():
            pass


async def test_after_closing_there_is_no_session(manager: DatabaseManager) -> None:
    await close_database()
    with pytest.raises(DatabaseNotInitialised):
        async with get_async_session():
            pass
    await close_database()  # a second time it does nothing


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mysql+aiomysql", "mariadb"])
async def test_a_server_that_is_away_is_named_in_one_line(scheme: str) -> None:
    url = f"{scheme}://ada:canary-7431@127.0.0.1:{free_port()}/tasks?password=canary-7432"
    with pytest.raises(DatabaseUnavailable) as caught:
        await initialize_database(DatabaseSettings(database_url=url, _env_file=None))
    message = str(caught.value)
    assert "\n" not in message
    assert "canary" not in message
    assert "ada:***@127.0.0.1" in message
    assert message.startswith("DATABASE_URL ")
    assert message.endswith("start the server or correct the URL")


async def test_a_folder_that_is_missing_is_named_in_one_line() -> None:
    with pytest.raises(DatabaseUnavailable, match="unable to open database file") as caught:
        await initialize_database(DatabaseSettings(database_url="sqlite:////nowhere/at/all.db", _env_file=None))
    assert "\n" not in str(caught.value)


async def test_a_wrong_password_is_not_repeated(postgres_url: str, mariadb_url: str) -> None:
    for url in (
        postgres_url.replace("postgres@", "nobody:canary-7433@"),
        mariadb_url.replace("root@", "x:canary-7433@"),
    ):
        with pytest.raises(DatabaseUnavailable) as caught:
            await initialize_database(DatabaseSettings(database_url=url, _env_file=None))
        assert "canary" not in str(caught.value)


async def test_one_that_is_cancelled_at_any_moment_leaves_nothing_open(manager: DatabaseManager) -> None:
    done = 0

    async def write(number: int) -> None:
        nonlocal done
        async with get_async_session() as session:
            await session.execute(insert(User).values(username=f"user {number}"))
        done += 1

    for number in range(60):
        task = asyncio.create_task(write(number))
        await asyncio.sleep(number * 0.0002)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert checked_out(manager) == 0, number
    assert done < 60
    async with asyncio.timeout(10), get_async_session() as session:  # no lock is left
        await session.execute(update(User).values(username=User.username + "!"))
    assert await count_users() >= done
