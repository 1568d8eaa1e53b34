"""A session that was opened for reading cannot write, and what is read often costs no more than its statements."""

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError

from db.connection import DatabaseManager, get_async_session, get_reader, get_reading_session
from db.models import User
from db.settings import DatabaseSettings
from tests.databases.statements import statements

COUNT = select(func.count()).select_from(User)
WRITES = (
    "INSERT INTO users (username) VALUES ('ada')",
    "UPDATE users SET username = 'x'",
    "DELETE FROM users",
)


async def count_users() -> int:
    async with get_reading_session() as session:
        return (await session.execute(COUNT)).scalar_one()


@pytest.mark.parametrize("write", [*WRITES, "CREATE TABLE never_made (id INTEGER)"])
async def test_it_cannot_write(manager: DatabaseManager, write: str) -> None:
    async with get_async_session() as session:
        session.add(User(username="eve"))
    with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
        async with get_async_session(read_only=True) as session:
            await session.execute(text(write))
    with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
        async with manager.get_connection(read_only=True) as connection:
            await connection.execute(text(write))
    assert await count_users() == 1


async def test_the_orm_cannot_write_either(manager: DatabaseManager) -> None:
    with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
        async with get_async_session(read_only=True) as session:
            session.add(User(username="ada"))
    assert await count_users() == 0


async def test_whoever_has_the_connection_next_can_write_again(manager: DatabaseManager) -> None:
    for number in range(3):
        async with get_async_session(read_only=True) as session:
            assert (await session.execute(COUNT)).scalar_one() == number
        async with get_async_session() as session:
            await session.execute(insert(User).values(username=f"user {number}"))
    assert await count_users() == 3


async def test_each_statement_sees_what_was_committed_before_it(manager: DatabaseManager) -> None:
    """But on SQLite, where a transaction sees one state of the database."""
    async with get_async_session(read_only=True) as session:
        assert (await session.execute(COUNT)).scalar_one() == 0
        async with get_async_session() as other:
            other.add(User(username="ada"))
        seen = (await session.execute(COUNT)).scalar_one()
    assert seen == (0 if manager.writers_take_turns else 1)


async def test_what_is_read_often_costs_its_statements_only(manager: DatabaseManager) -> None:
    """SQLite, in this process, is told each time how its transaction begins."""
    begins = ["BEGIN"] if manager.writers_take_turns else []
    with statements(manager, all_of_them=True) as sent:
        async with get_reader() as connection:
            await connection.execute(COUNT)
        async with get_reading_session() as session:
            await session.execute(COUNT)
    assert [statement for statement in sent if "count" not in statement] == begins * 2
    assert len(sent) == 2 + len(begins) * 2


async def test_postgresql_sends_no_more_messages_than_statements(migrated_postgresql: str) -> None:
    """By its own account: a statement that was prepared needs one round trip, and no BEGIN."""
    manager = DatabaseManager(DatabaseSettings(database_url=migrated_postgresql, _env_file=None))
    asked: list[str] = []
    try:
        async with manager.reader() as connection:
            raw = await connection.get_raw_connection()
            driver = raw.driver_connection
            assert driver is not None
            driver.add_query_logger(lambda query: asked.append(query.query))
        async with manager.reader() as connection:
            await connection.execute(COUNT)
        async with manager.reading_session() as session:
            await session.execute(COUNT)
        assert asked == []
        async with manager.session(read_only=True) as session:
            await session.execute(COUNT)
    finally:
        await manager.close()
    assert asked == ["BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY;", "COMMIT;"]


async def test_a_replica_is_read_and_never_written(postgres_url: str, migrated_postgresql: str) -> None:
    settings = DatabaseSettings(database_url=postgres_url, database_replica_url=migrated_postgresql, _env_file=None)
    here = text("SELECT current_database()")
    manager = DatabaseManager(settings)
    try:
        async with manager.session(read_only=True) as session:
            assert (await session.execute(here)).scalar_one() == settings.replica_url.database  # type: ignore[union-attr]
        with pytest.raises(DBAPIError, match="read-only"):
            async with manager.session(read_only=True) as session:
                await session.execute(text("DELETE FROM users"))
        for opened in (manager.session(), manager.reading_session(), manager.session(single=True)):
            async with opened as session:
                assert (await session.execute(here)).scalar_one() == settings.url.database
        async with manager.reader() as reader:
            assert (await reader.execute(here)).scalar_one() == settings.url.database
        health = await manager.health_check()
        assert (health["status"], health["replica"]["status"]) == ("healthy", "healthy")
        assert health["replica"]["database_url"] != health["database_url"]
    finally:
        await manager.close()
