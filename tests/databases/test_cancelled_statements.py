"""What a cancelled statement still does at the database is ended, on each engine."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from db.cancelled import InterruptibleConnection
from db.connection import DatabaseManager, get_async_session, get_reading_session
from db.settings import DatabaseSettings
from tests.databases.sessions import running
from tests.servers import wait_until

LONG = {
    "postgresql": "SELECT pg_sleep(300) /* cancelled-here */",
    "mariadb": "SELECT sleep(300) /* cancelled-here */",
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
}
PATIENCE_S = 30.0


async def run_for_long(manager: DatabaseManager, *, writes: bool) -> None:
    opened = get_async_session() if writes else get_reading_session()
    async with opened as session:
        if writes:
            await session.execute(text("DELETE FROM users"))
        await session.execute(text(LONG[manager.engine.dialect.name]))


@pytest.mark.parametrize("writes", [True, False])
async def test_it_ends_at_the_database(manager: DatabaseManager, writes: bool, request: pytest.FixtureRequest) -> None:
    name = manager.engine.dialect.name
    task = asyncio.create_task(run_for_long(manager, writes=writes))
    if name == "sqlite":
        await asyncio.sleep(0.2)
    else:
        server = request.getfixturevalue("postgres_server" if name == "postgresql" else "mariadb_server")
        assert await asyncio.to_thread(wait_until, lambda: running(server, "cancelled-here") > 0, PATIENCE_S)
    began = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began < PATIENCE_S
    if name != "sqlite":
        assert await asyncio.to_thread(wait_until, lambda: not running(server, "cancelled-here"), PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S), get_async_session() as session:  # and no lock is left
        await session.execute(text("DELETE FROM users"))


async def test_sqlite_is_interrupted_wherever_that_finds_it(sqlite_url: str) -> None:
    manager = DatabaseManager(DatabaseSettings(database_url=sqlite_url, _env_file=None))

    async def count_for_ever() -> None:
        async with manager.session() as session:
            await session.execute(text(LONG["sqlite"]))

    for round_number in range(20):
        task = asyncio.create_task(count_for_ever())
        for _ in range(round_number):
            await asyncio.sleep(0)
        task.cancel()
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(asyncio.CancelledError):
                await task
    await manager.close()


def test_sqlite_keeps_no_lock_of_a_connection_that_is_closed_while_it_reads(tmp_path: Path) -> None:
    """As a traceback keeps its cursor, and an interruption hits whatever follows."""
    file = tmp_path / "holdfast.db"
    writer = sqlite3.connect(file, factory=InterruptibleConnection, isolation_level=None)
    writer.execute("CREATE TABLE numbers (n)")
    writer.execute("BEGIN IMMEDIATE")
    reading = writer.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n")
    assert reading.fetchone() == (1,)
    assert writer.interrupt_unless_closing()
    writer.close()

    with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
    assert reading.connection is writer


async def test_a_timeout_in_python_ends_it_too(manager: DatabaseManager) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await run_for_long(manager, writes=False)
    async with asyncio.timeout(PATIENCE_S):
        await manager.close()
