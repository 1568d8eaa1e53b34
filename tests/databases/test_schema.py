"""All tables at once, for tests and throwaway databases; what may matter is not dropped unasked."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import inspect
from sqlalchemy.engine import make_url

from db import migrate, schema
from db.base import Base
from db.connection import DatabaseManager
from db.models import User
from db.schema import ResetRefused
from db.settings import DatabaseSettings


@pytest.fixture
async def empty(database_url: str) -> AsyncIterator[DatabaseManager]:
    manager = DatabaseManager(DatabaseSettings(database_url=database_url, _env_file=None))
    yield manager
    await manager.close()


async def tables(manager: DatabaseManager) -> set[str]:
    async with manager.get_connection(read_only=True) as connection:
        return set(await connection.run_sync(lambda sync: inspect(sync).get_table_names()))


async def test_the_tables_are_made_and_count_as_migrated(empty: DatabaseManager) -> None:
    await empty.create_tables()
    assert set(Base.metadata.tables) <= await tables(empty)
    await migrate.require_current(empty)
    await empty.create_tables()  # again: nothing is missing
    async with empty.session() as session:
        session.add(User(username="ada"))


async def test_what_is_there_is_not_counted_as_migrated(empty: DatabaseManager) -> None:
    async with empty.get_connection() as connection:
        await connection.run_sync(Base.metadata.tables["users"].create)
    await empty.create_tables()
    assert await migrate.current_revision(empty) is None


async def test_empty_tables_are_dropped_and_made_anew(empty: DatabaseManager) -> None:
    await empty.create_tables()
    await empty.reset()
    await migrate.require_current(empty)
    await empty.drop_tables()
    assert await tables(empty) == set()
    assert await migrate.current_revision(empty) is None


async def test_rows_are_dropped_only_by_force(empty: DatabaseManager) -> None:
    await empty.create_tables()
    async with empty.session() as session:
        session.add(User(username="ada"))
    for refused in (empty.reset, empty.drop_tables):
        with pytest.raises(ResetRefused, match=r"holds rows \(users 1\): its tables are not dropped; pass force=True"):
            await refused()
    assert (await empty.execute_raw_sql("SELECT count(*) AS number FROM users"))[0]["number"] == 1
    await empty.reset(force=True)
    assert (await empty.execute_raw_sql("SELECT count(*) AS number FROM users"))[0]["number"] == 0


async def test_a_database_elsewhere_is_dropped_only_by_force(empty: DatabaseManager) -> None:
    await empty.create_tables()
    url = make_url("postgresql+asyncpg://ada:canary-92@db.example/tasks")
    with pytest.raises(ResetRefused, match="is not on this machine") as caught:
        await schema.drop_tables(empty.engine, url)
    assert "canary" not in str(caught.value)
    assert set(Base.metadata.tables) <= await tables(empty)
    await schema.drop_tables(empty.engine, url, force=True)
    assert await tables(empty) == set()
