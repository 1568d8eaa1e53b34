"""What the servers really raise, and what is made of it."""

import asyncio

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from db.connection import DatabaseManager, close_database, get_async_session, initialize_database
from db.errors import first_line, is_transient, is_unique_violation, is_unstorable
from db.models import Task, User
from db.settings import DatabaseSettings
from holdfast.ids import uuid7
from tests.databases.engines import ON_SERVERS
from tests.servers import MariaDBServer, PostgresServer


async def error_of(*statements: object) -> DBAPIError:
    """Run statements in one session and return what the last one raised."""
    with pytest.raises(DBAPIError) as caught:
        await run_all(*statements)
    return caught.value


async def run_all(*statements: object) -> None:
    async with get_async_session() as session:
        for statement in statements:
            await session.execute(text(statement) if isinstance(statement, str) else statement)  # type: ignore[call-overload]


async def test_a_taken_key_is_a_unique_violation(manager: DatabaseManager) -> None:
    error = await error_of(insert(User).values(username="ada"), insert(User).values(username="ada"))
    assert is_unique_violation(error)
    assert not is_transient(error)
    key = uuid7()
    assert is_unique_violation(await error_of(*(insert(User).values(id=key, username=name) for name in "ab")))


async def test_a_missing_parent_is_none(manager: DatabaseManager) -> None:
    error = await error_of(insert(Task).values(title="t", user_id=uuid7()))
    assert isinstance(error, IntegrityError)
    assert not is_unique_violation(error)
    assert not is_transient(error)


@pytest.mark.parametrize("statement", ["SELECT * FROM nowhere", "SELEC 1"])
async def test_a_wrong_statement_is_final(manager: DatabaseManager, statement: str) -> None:
    error = await error_of(statement)
    assert not is_transient(error)
    assert not is_unique_violation(error)


async def test_the_line_shown_holds_no_statement_and_no_value(manager: DatabaseManager) -> None:
    error = await error_of(insert(Task).values(title="canary-5512", user_id=uuid7()))
    line = first_line(error)
    assert line
    assert "\n" not in line
    assert "canary" not in line
    assert "INSERT INTO" not in line


async def test_a_lock_that_does_not_come_is_transient(manager: DatabaseManager) -> None:
    shorter = {
        "postgresql": "SET LOCAL lock_timeout = '50ms'",
        "mariadb": "SET STATEMENT innodb_lock_wait_timeout = 0 FOR ",
        "sqlite": "PRAGMA busy_timeout = 1",
    }[manager.engine.dialect.name]
    change = "UPDATE users SET full_name = 'x'"
    await run_all(insert(User).values(username="ada"))
    async with get_async_session() as holder:
        await holder.execute(text(change))
        if manager.engine.dialect.name == "mariadb":
            error = await error_of(shorter + change)
        elif manager.engine.dialect.name == "postgresql":
            error = await error_of(shorter, change)
        else:
            with pytest.raises(DBAPIError) as caught:
                await hurried_sqlite(manager, shorter)
            error = caught.value
    assert is_transient(error)


async def hurried_sqlite(manager: DatabaseManager, pragma: str) -> None:
    async with manager.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute(pragma)
        await connection.execute(text("SELECT 1"))  # BEGIN IMMEDIATE


@ON_SERVERS  # SQLite has one writer and so no deadlock
async def test_a_deadlock_is_transient(manager: DatabaseManager) -> None:
    await run_all(*(insert(User).values(username=name) for name in ("ada", "bob")))
    both_hold_one = asyncio.Barrier(2)

    async def lock(*names: str) -> None:
        async with get_async_session() as session:
            for name in names:
                await session.execute(select(User).where(User.username == name).with_for_update())
                if name == names[0]:
                    await both_hold_one.wait()

    answers = await asyncio.gather(lock("ada", "bob"), lock("bob", "ada"), return_exceptions=True)
    (victim,) = [answer for answer in answers if answer is not None]
    assert is_transient(victim)


@ON_SERVERS  # SQLite has no server
async def test_a_session_that_the_server_ended_is_transient(
    manager: DatabaseManager, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(Exception, match=r".") as caught:
        await cut_off(manager, request)
    assert is_transient(caught.value)
    assert "\n" not in first_line(caught.value)
    await run_all("SELECT 1")  # the pool hands out a new connection


async def cut_off(manager: DatabaseManager, request: pytest.FixtureRequest) -> None:
    async with get_async_session() as session:
        if manager.engine.dialect.name == "postgresql":
            pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            postgres: PostgresServer = request.getfixturevalue("postgres_server")
            postgres.execute(f"SELECT pg_terminate_backend({pid})")
        else:
            pid = (await session.execute(text("SELECT connection_id()"))).scalar_one()
            mariadb: MariaDBServer = request.getfixturevalue("mariadb_server")
            mariadb.execute(f"KILL {pid}")
        await session.execute(text("SELECT 1"))


async def test_a_pool_without_a_free_connection_is_transient(settings: DatabaseSettings) -> None:
    small = {"database_pool_size": 1, "database_max_overflow": 0, "database_pool_timeout": 0.01}
    await initialize_database(settings.model_copy(update=small))
    try:
        async with get_async_session(read_only=True) as session:
            await session.execute(text("SELECT 1"))
            with pytest.raises(Exception, match="QueuePool limit of size 1 overflow 0 reached") as caught:
                await run_all("SELECT 1")
        assert is_transient(caught.value)
    finally:
        await close_database()


async def test_a_value_that_no_column_can_hold_is_unstorable(manager: DatabaseManager) -> None:
    for value in ("a" * 151, {"a": 1}, b"a", 1, "a\0b", "\ud800"):
        error = await statement_error(insert(User).values(username=value))
        assert is_unstorable(error)
        assert not is_transient(error)
    assert not is_unstorable(await statement_error("SELECT no_such_column"))
    assert not is_unstorable(ValueError("a value"))


async def statement_error(statement: object) -> BaseException:
    """Run a statement and return what it raised, which may not have come from the server; a value if it did not."""
    try:
        await run_all(statement)
    except StatementError as error:
        return error
    return ValueError("nothing was raised")


async def test_json_that_is_nested_too_deep_is_unstorable(manager: DatabaseManager) -> None:
    nested: list[object] = []
    for _ in range(100):
        nested = [nested]
    error = await statement_error(insert(Task).values(title="t", user_id=uuid7(), metadata_json={"a": nested}))
    assert is_unstorable(error)
    assert "$.a[0][0]" in str(error)
    assert "is nested deeper than 31 levels, which MariaDB cannot hold: flatten it" in str(error)
