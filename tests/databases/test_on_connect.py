"""What each new connection is told."""

import asyncio

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.connection import DatabaseManager, get_async_session
from db.errors import is_transient
from db.settings import DatabaseSettings
from db.tuning import mysql_statement

TOLD: dict[str, dict[str, object]] = {
    "postgresql": {
        "current_setting('TimeZone')": "UTC",
        "current_setting('statement_timeout')": "15min",
        "current_setting('idle_in_transaction_session_timeout')": "1min",
        "current_setting('application_name')": "holdfast",
        "current_setting('transaction_isolation')": "read committed",
    },
    "mariadb": {
        "@@time_zone": "+00:00",
        "@@max_statement_time": 900.0,
        "@@idle_transaction_timeout": 60,
        "@@character_set_client": "utf8mb4",
        "@@collation_connection": "utf8mb4_nopad_bin",
        "@@tx_isolation": "READ-COMMITTED",
        "@@sql_mode LIKE '%STRICT_TRANS_TABLES%'": 1,
    },
    "sqlite": {
        "(SELECT foreign_keys FROM pragma_foreign_keys)": 1,
        "(SELECT journal_mode FROM pragma_journal_mode)": "wal",
        "(SELECT synchronous FROM pragma_synchronous)": 2,
        "(SELECT timeout FROM pragma_busy_timeout)": 30000,
    },
}
LONG = {"postgresql": "SELECT pg_sleep(60)", "mariadb": "SELECT sum(sqrt(seq)) FROM seq_1_to_100000000000"}


async def test_a_connection_is_told(manager: DatabaseManager) -> None:
    told = TOLD[manager.engine.dialect.name]
    async with get_async_session() as session:
        row = (await session.execute(text(f"SELECT {', '.join(told)}"))).one()
    assert dict(zip(told, row, strict=True)) == told


async def test_text_is_compared_by_its_bytes(manager: DatabaseManager) -> None:
    """Parameters among themselves, too, which have no column's collation."""
    async with get_async_session() as session:
        for one, other in (("x", "X"), ("x", "x "), ("e", "\u00e9")):
            query = text("SELECT CASE WHEN :one = :other THEN 1 ELSE 0 END")
            assert (await session.execute(query, {"one": one, "other": other})).scalar_one() == 0


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
async def test_a_statement_ends_at_its_time_and_may_be_tried_again(
    name: str, postgres_url: str, mariadb_url: str
) -> None:
    url = postgres_url if name == "postgresql" else mariadb_url
    manager = DatabaseManager(DatabaseSettings(database_url=url, database_statement_timeout_s=0.2, _env_file=None))
    try:
        async with manager.session() as session:
            with pytest.raises(DBAPIError, match=r"(?i)statement") as caught:
                await session.execute(text(LONG[name]))
            await session.rollback()
        assert is_transient(caught.value)
    finally:
        await manager.close()


@pytest.mark.parametrize("name", ["postgresql", "mariadb"])
async def test_an_idle_transaction_is_ended_by_the_server(name: str, postgres_url: str, mariadb_url: str) -> None:
    url = postgres_url if name == "postgresql" else mariadb_url
    settings = DatabaseSettings(database_url=url, database_idle_transaction_timeout_s=1, _env_file=None)
    manager, watcher = DatabaseManager(settings), DatabaseManager(settings)
    living = {
        "postgresql": "SELECT pid FROM pg_stat_activity WHERE pid = :id",
        "mariadb": "SELECT id FROM information_schema.processlist WHERE id = :id",
    }[name]

    async def idle() -> None:
        own = "SELECT pg_backend_pid()" if name == "postgresql" else "SELECT connection_id()"
        async with manager.session() as session:
            await session.execute(text("CREATE TABLE something (id INTEGER)"))
            await session.commit()
            await session.execute(text("INSERT INTO something VALUES (1)"))
            session_id = (await session.execute(text(own))).scalar_one()
            while await watcher.execute_raw_sql(living, {"id": session_id}):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await session.execute(text("INSERT INTO something VALUES (2)"))

    with pytest.raises(DBAPIError) as caught:
        await idle()
    assert is_transient(caught.value)
    await manager.close()
    await watcher.close()


def test_mysql_reads_its_own_comment_and_skips_mariadbs() -> None:
    """MySQL itself is not tested here: its manual says what it makes of these comments (section 11.7)."""
    settings = DatabaseSettings(database_url="mysql://db.example/tasks", _env_file=None)
    statement = mysql_statement(settings, pooled=True)
    of_mysql = statement.partition("/*!80017")[2]
    assert of_mysql == " , collation_connection = utf8mb4_0900_bin, max_execution_time = 900000 */"
    assert statement.startswith("SET time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES,")
    assert "max_statement_time = 900 */ " in statement
    assert "max_statement_time = 0 */" in mysql_statement(settings, pooled=False)
