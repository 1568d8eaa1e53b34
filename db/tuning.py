"""What each engine is told when a connection is opened, so that all three behave alike."""

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiosqlite
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, Engine

from db.cancelled import InterruptibleConnection
from db.collations import table_collation
from db.run_sessions import forget_names
from db.settings import DatabaseSettings
from db.tls import requires_tls, tls_arguments
from db.urls import engine_family, is_in_memory

CONNECT_TIMEOUT_S = 10
"""Seconds that a connection may take to be opened, its first words with the server included."""
COM_SET_OPTION = 0x1B
MULTI_STATEMENTS_OFF = (1).to_bytes(2, "little")

SQLITE_PRAGMAS = (
    "PRAGMA busy_timeout = 30000",  # ms to wait for the one writer's turn; first, because the next may have to wait
    "PRAGMA journal_mode = WAL",  # readers and the one writer do not block each other
    "PRAGMA synchronous = FULL",  # a commit survives a power cut
    "PRAGMA foreign_keys = ON",
)
SQL_MODES = "STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"


def engine_options(settings: DatabaseSettings, url: URL, *, pooled: bool) -> dict[str, Any]:
    """Return the arguments of ``create_async_engine`` that this URL needs besides those of the pool."""
    family, tls = engine_family(url), tls_arguments(settings)
    if family == "postgresql":
        behind_pooler = is_behind_pooler(settings, pooled=pooled)
        arguments = _behind_pooler() if behind_pooler else _postgresql(settings, pooled=pooled)
        return {"connect_args": {"timeout": CONNECT_TIMEOUT_S, **arguments, **tls}}
    if family == "mysql":
        arguments = {"async_creator_fn": _mysql_creator(url.get_driver_name()), "charset": "utf8mb4", **tls}
        return {"isolation_level": "READ COMMITTED", "connect_args": arguments}
    lasting = {"pool_recycle": -1} if is_in_memory(url) else {}  # it ends with its last connection
    return {"connect_args": {"async_creator_fn": _connect_sqlite, "factory": InterruptibleConnection}, **lasting}


def is_behind_pooler(settings: DatabaseSettings, *, pooled: bool) -> bool:
    """Whether an engine reaches PostgreSQL through PgBouncer in transaction mode."""
    return settings.database_pooler != "none" and (pooled or settings.database_direct_url is None)


def tune(engine: Engine, settings: DatabaseSettings, *, pooled: bool) -> None:
    """Attach what tells each new connection, and behind a pooler each transaction."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _tune_sqlite)
    elif engine.dialect.name in {"mysql", "mariadb"}:
        event.listen(engine, "connect", _mysql_tuner(settings, pooled=pooled))
        event.listen(engine, "reset", forget_names)
    elif is_behind_pooler(settings, pooled=pooled):
        event.listen(engine, "begin", _transaction_tuner(settings, pooled=pooled))


def _timeouts_ms(settings: DatabaseSettings, *, pooled: bool) -> dict[str, str]:
    statement_s = settings.database_statement_timeout_s if pooled else 0.0
    idle_s = settings.database_idle_transaction_timeout_s
    seconds = {"statement_timeout": statement_s, "idle_in_transaction_session_timeout": idle_s}
    return {name: str(round(value * 1000)) for name, value in seconds.items()}


def _postgresql(settings: DatabaseSettings, *, pooled: bool) -> dict[str, Any]:
    return {
        "server_settings": {
            "timezone": "UTC",
            "application_name": "holdfast",
            **_timeouts_ms(settings, pooled=pooled),
            # A plan that was cached while the ledger was nearly empty reads all of it once it is full.
            "plan_cache_mode": "force_custom_plan",
        }
    }


def _behind_pooler() -> dict[str, Any]:
    # Each transaction may reach another server connection: a statement that was prepared by name is not there, or is
    # somebody else's. Unnamed ones live as long as the transaction that prepares and executes them, and are planned
    # anew each time. PgBouncer refuses startup parameters that it does not track: https://www.pgbouncer.org/config.html
    return {
        "server_settings": {"timezone": "UTC", "application_name": "holdfast"},
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: "",
    }


def _transaction_tuner(settings: DatabaseSettings, *, pooled: bool) -> Any:
    timeouts = _timeouts_ms(settings, pooled=pooled).items()
    statement = "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in timeouts)

    def tell(connection: Connection) -> None:
        connection.exec_driver_sql(statement)

    return tell


def _mysql_tuner(settings: DatabaseSettings, *, pooled: bool) -> Any:
    statement = mysql_statement(settings, pooled=pooled)
    encrypted = requires_tls(settings)

    def tell(dbapi_connection: Any, record: object) -> None:
        del record
        cursor = dbapi_connection.cursor()
        cursor.execute(statement)
        if encrypted:  # aiomysql goes on in the clear where the server offers no encryption
            cursor.execute("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
            if not cursor.fetchone()[1]:
                raise ConnectionError(f"the server offers no encryption, but DATABASE_TLS is {settings.database_tls}")
        cursor.close()
        dbapi_connection.run_async(_refuse_second_statements)

    return tell


async def _refuse_second_statements(driver: Any) -> None:
    # Both drivers ask for many statements in one call, which is what injected SQL lives on. COM_SET_OPTION takes it
    # back: https://mariadb.com/kb/en/com_set_option/
    await driver._execute_command(COM_SET_OPTION, MULTI_STATEMENTS_OFF)  # noqa: SLF001 - they have no method for it
    read = driver.read_packet if hasattr(driver, "read_packet") else driver._read_packet  # noqa: SLF001
    await read()


def mysql_statement(settings: DatabaseSettings, *, pooled: bool) -> str:
    """Return the one statement that tells MySQL and MariaDB; each reads its own comment and skips the other's."""
    statement_s = settings.database_statement_timeout_s if pooled else 0.0
    mariadb = {
        "collation_connection": table_collation(is_mariadb=True),
        "idle_transaction_timeout": str(round(settings.database_idle_transaction_timeout_s)),  # MySQL has none
        "max_statement_time": f"{statement_s:g}",
    }
    mysql = {
        "collation_connection": table_collation(is_mariadb=False),
        "max_execution_time": str(round(statement_s * 1000)),
    }
    return (
        f"SET time_zone = '+00:00', sql_mode = '{SQL_MODES}' "
        f"/*M! {_assignments(mariadb)} */ /*!80017 {_assignments(mysql)} */"
    )


def _assignments(values: dict[str, str]) -> str:
    return "".join(f", {name} = {value}" for name, value in values.items())


def _mysql_creator(driver: str) -> Callable[..., Awaitable[Any]]:
    """Return a driver's ``connect`` with a limit; its own ends when the server has taken the TCP connection.

    A server that takes it and says nothing would hold the caller for ever.
    """

    async def connect(*args: Any, **kwargs: Any) -> Any:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            return await importlib.import_module(driver).connect(*args, **kwargs)

    return connect


async def _connect_sqlite(*args: Any, **kwargs: Any) -> aiosqlite.Connection:
    connection = aiosqlite.connect(*args, **kwargs)
    thread = connection._thread  # noqa: SLF001 - as SQLAlchemy's own creator does
    thread.daemon = True
    try:
        return await connection
    except BaseException:
        # The thread still tells the event loop of its end, and would die with a traceback if that were closed by then.
        await asyncio.to_thread(thread.join)
        raise


def _tune_sqlite(dbapi_connection: Any, record: object) -> None:
    del record
    dbapi_connection.isolation_level = None  # the driver opens no transactions of its own; db.read_only does
    cursor = dbapi_connection.cursor()
    for statement in SQLITE_PRAGMAS:
        cursor.execute(statement)
    cursor.close()
