"""What is SQLite's own: one writer at a time, and databases in memory."""

import asyncio
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import func, insert, select, text

from db import migrate
from db.connection import DatabaseManager, close_database, get_async_session, initialize_database
from db.models import User
from db.settings import DatabaseSettings
from tests.processes import CHECKOUT, clean_environment

PROCESSES, ROUNDS = 4, 25
ADD_ONE = """
import asyncio, sys
from sqlalchemy import text
from db.connection import close_database, get_async_session, initialize_database
from db.settings import DatabaseSettings

async def main():
    await initialize_database(DatabaseSettings(database_url=sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        async with get_async_session() as session:
            value = (await session.execute(text("SELECT value FROM tally"))).scalar_one()
            await session.execute(text("UPDATE tally SET value = :value"), {"value": value + 1})
    await close_database()

asyncio.run(main())
"""


async def test_writers_of_several_processes_lose_no_update(sqlite_url: str, tmp_path: Path) -> None:
    manager = DatabaseManager(DatabaseSettings(database_url=sqlite_url, _env_file=None))
    async with manager.session() as session:
        await session.execute(text("CREATE TABLE tally (value INTEGER)"))
        await session.execute(text("INSERT INTO tally VALUES (0)"))
    command = [sys.executable, "-c", ADD_ONE, sqlite_url, str(ROUNDS)]
    writers = [
        await asyncio.create_subprocess_exec(*command, cwd=CHECKOUT, env=clean_environment()) for _ in range(PROCESSES)
    ]
    assert await asyncio.gather(*(writer.wait() for writer in writers)) == [0] * PROCESSES
    async with manager.session(read_only=True) as session:
        assert (await session.execute(text("SELECT value FROM tally"))).scalar_one() == PROCESSES * ROUNDS
    await manager.close()


@pytest.mark.parametrize("url", [":memory:", "sqlite://", "sqlite:///:memory:"])
async def test_a_database_in_memory_is_shared_by_the_sessions_of_the_process(url: str) -> None:
    settings = DatabaseSettings(database_url=url, _env_file=None)
    await initialize_database(settings)
    try:
        await migrate.upgrade(settings)
        await asyncio.gather(*(add_user(f"user {number}") for number in range(20)))
        async with get_async_session(read_only=True) as session:
            assert (await session.execute(select(func.count()).select_from(User))).scalar_one() == 20
    finally:
        await close_database()


async def test_a_database_in_memory_ends_with_its_pool() -> None:
    settings = DatabaseSettings(database_url=":memory:", _env_file=None)
    manager = await initialize_database(settings)
    await migrate.upgrade(settings)
    assert await migrate.current_revision(manager) == migrate.head_revision()
    await close_database()
    manager = await initialize_database(settings)
    assert await migrate.current_revision(manager) is None
    await close_database()


async def add_user(name: str) -> None:
    async with get_async_session() as session:
        await session.execute(insert(User).values(username=name))


async def test_a_cancelled_writer_leaves_no_lock(sqlite_url: str) -> None:
    manager = DatabaseManager(DatabaseSettings(_env_file=None, database_url=SecretStr(sqlite_url)))
    await manager.connect()
    kept: list[BaseException] = []  # with their tracebacks, as logs and reports keep them

    async def write_for_ever() -> None:
        while True:
            async with manager.session() as session:
                for _ in range(5):
                    await session.execute(text("INSERT INTO notes VALUES (:a)"), [{"a": a} for a in range(200)])

    async with manager.session() as session:
        await session.execute(text("CREATE TABLE notes (a INTEGER)"))
    for round_number in range(30):
        writer = asyncio.create_task(write_for_ever())
        await asyncio.sleep(round_number / 1500)  # wherever that finds it
        writer.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await writer
        kept.append(cancelled.value)
        async with asyncio.timeout(10), manager.session() as session:
            await session.execute(text("INSERT INTO notes VALUES (0)"))
    await manager.close()
