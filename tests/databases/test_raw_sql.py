"""Statements as text: every value is bound, and goes where it belongs."""

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, StatementError

from db.connection import DatabaseManager
from db.models import User
from db.settings import DatabaseSettings

HOSTILE = (
    "x'; DROP TABLE users; --",
    '"; DROP TABLE users; --',
    "\\'; DROP TABLE users; --",
    ":name",
    "%s",
    "%(a)s",
    "?",
)


async def test_rows_come_back_by_their_names(manager: DatabaseManager) -> None:
    async with manager.session() as session:
        session.add_all([User(username="ada"), User(username="eve")])
    rows = await manager.execute_raw_sql(
        "SELECT username, 7 AS seven FROM users WHERE username = :name", {"name": "ada"}, read_only=True
    )
    assert [dict(row) for row in rows] == [{"username": "ada", "seven": 7}]


async def test_a_list_fills_an_in(manager: DatabaseManager) -> None:
    async with manager.session() as session:
        session.add_all([User(username=name) for name in ("ada", "eve", "bob")])
    query = "SELECT username FROM users WHERE username IN :names ORDER BY username"
    rows = await manager.execute_raw_sql(query, {"names": ["eve", "ada", *HOSTILE]})
    assert [row["username"] for row in rows] == ["ada", "eve"]
    with pytest.raises(ValueError, match="names is an empty list, and IN takes at least one value"):
        await manager.execute_raw_sql(query, {"names": []})


async def test_a_change_is_committed_and_gives_no_rows(manager: DatabaseManager) -> None:
    async with manager.session() as session:
        session.add(User(username="ada"))
    assert await manager.execute_raw_sql("UPDATE users SET full_name = :name", {"name": "Ada"}) == []
    (row,) = await manager.execute_raw_sql("SELECT full_name FROM users")
    assert row["full_name"] == "Ada"


@pytest.mark.parametrize("hostile", HOSTILE)
async def test_sql_in_a_value_stays_a_value(manager: DatabaseManager, hostile: str) -> None:
    async with manager.session() as session:
        session.add(User(username=hostile))
    (row,) = await manager.execute_raw_sql("SELECT username FROM users WHERE username = :name", {"name": hostile})
    assert row["username"] == hostile


@pytest.mark.parametrize(
    ("sql", "params", "odd"),
    [
        ("SELECT username FROM users WHERE username = :name", {}, "name"),
        ("SELECT username FROM users WHERE username = :name", {"name": "x", "more": 1}, "more"),
        ("SELECT username FROM users WHERE username = 'x'", {"name": "x"}, "name"),
    ],
)
async def test_a_value_without_a_place_is_refused(
    manager: DatabaseManager, sql: str, params: dict[str, object], odd: str
) -> None:
    with pytest.raises(ValueError, match=rf"differ in {odd}: write :name in the SQL for each value"):
        await manager.execute_raw_sql(sql, params)


@pytest.mark.parametrize("driver", ["asyncpg", "asyncmy", "aiomysql", "aiosqlite"])
async def test_a_second_statement_is_refused(driver: str, postgres_url: str, mariadb_url: str, sqlite_url: str) -> None:
    urls = {
        "asyncpg": postgres_url,
        "asyncmy": mariadb_url,
        "aiomysql": mariadb_url.replace("mariadb://", "mysql+aiomysql://"),
        "aiosqlite": sqlite_url,
    }
    manager = DatabaseManager(DatabaseSettings(database_url=urls[driver], _env_file=None))
    try:
        await manager.execute_raw_sql("CREATE TABLE kept (id INTEGER)")
        with pytest.raises(DBAPIError):
            await manager.execute_raw_sql("SELECT 1; DROP TABLE kept")
        assert await manager.execute_raw_sql("SELECT id FROM kept") == []
    finally:
        await manager.close()


async def test_a_reading_one_cannot_write(manager: DatabaseManager) -> None:
    with pytest.raises(DBAPIError, match=r"(?i)read.?only"):
        await manager.execute_raw_sql("DELETE FROM users", read_only=True)


@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text())
async def test_any_text_comes_back_or_is_refused(manager: DatabaseManager, value: str) -> None:
    """PostgreSQL keeps no NUL, nobody a lone surrogate."""
    cast = "CAST(:value AS CHAR)" if manager.engine.dialect.name == "mariadb" else "CAST(:value AS TEXT)"
    try:
        async with manager.get_connection(read_only=True) as connection:
            back = (await connection.execute(text(f"SELECT {cast}"), {"value": value})).scalar_one()
    except (StatementError, UnicodeEncodeError):
        assert "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)
    else:
        assert back == value
