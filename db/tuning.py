"""What each engine is told when a connection is opened, so that all three behave alike."""

import asyncio
import sqlite3
import time
from typing import Any

import aiosqlite
from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import InvalidatePoolError

from db.urls import is_in_memory

READ_ONLY = "holdfast_read_only"
"""Execution option of a connection that will only read; on SQLite its transaction takes no write lock."""

TRUSTED_S = 15.0
"""Seconds for which a connection that was used is taken again without asking whether it still works: that costs up to
three round trips. Whoever meets one that broke meanwhile gets a transient error, as when it breaks in the middle."""

SQLITE_PRAGMAS = (
    "PRAGMA busy_timeout = 30000",  # ms to wait for the one writer's turn; first, because the next may have to wait
    "PRAGMA journal_mode = WAL",  # readers and the one writer do not block each other
    "PRAGMA synchronous = FULL",  # a commit survives a power cut
    "PRAGMA foreign_keys = ON",
)
SQL_MODES = "STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
IDLE_TRANSACTION_S = 60
"""Seconds after which the server ends a transaction whose client is frozen between two statements. MySQL has no such
setting; there, whoever takes a run over ends the session by its named lock."""
MYSQL_STATEMENTS = (
    "SET SESSION time_zone = '+00:00'",
    f"SET SESSION sql_mode = '{SQL_MODES}'",
    f"/*M! SET SESSION idle_transaction_timeout = {IDLE_TRANSACTION_S} */",  # MariaDB only
)


def engine_options(url: URL) -> dict[str, Any]:
    """Return the arguments of ``create_async_engine`` that this URL needs besides those of the pool."""
    backend = url.get_backend_name()
    if backend == "postgresql":
        return {
            "connect_args": {
                "timeout": 10,  # seconds to connect
                "server_settings": {
                    "timezone": "UTC",
                    "application_name": "holdfast",
                    "idle_in_transaction_session_timeout": str(IDLE_TRANSACTION_S * 1000),
                    # A plan that was cached while the ledger was nearly empty reads all of it once it is full.
                    "plan_cache_mode": "force_custom_plan",
                },
            }
        }
    if backend in {"mysql", "mariadb"}:
        return {"isolation_level": "READ COMMITTED", "connect_args": {"connect_timeout": 10, "charset": "utf8mb4"}}
    lasting = {"pool_recycle": -1} if is_in_memory(url) else {}  # it ends with its last connection
    return {"connect_args": {"async_creator_fn": _connect_sqlite, "factory": _SqliteConnection}, **lasting}


def tune(engine: Engine) -> None:
    """Attach the engine's listeners."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _tune_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return
    if engine.dialect.name in {"mysql", "mariadb"}:
        event.listen(engine, "connect", _tune_mysql)
    _ask_the_long_unused(engine)


def _ask_the_long_unused(engine: Engine) -> None:
    """What ``pool_pre_ping`` does at every use, after a pause only."""
    dialect = engine.dialect

    def note_use(dbapi_connection: Any, record: Any) -> None:
        del dbapi_connection
        record.info["used_at"] = time.monotonic()

    def ask(dbapi_connection: Any, record: Any, proxy: object) -> None:
        del proxy
        if time.monotonic() - record.info["used_at"] <= TRUSTED_S:
            return
        try:
            dialect.do_ping(dbapi_connection)
        except dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError("the connection was lost while nobody used it") from error

    event.listen(engine, "connect", note_use)
    event.listen(engine, "checkin", note_use)
    event.listen(engine, "checkout", ask)


class _SqliteConnection(sqlite3.Connection):
    """Rolls back when it is closed.

    SQLAlchemy closes a connection whose statement was cancelled. SQLite defers that, and keeps the write lock, for as
    long as a statement of the connection lives: here until the traceback of the cancellation is forgotten.
    """

    def close(self) -> None:
        try:
            if self.in_transaction:
                self.rollback()
        finally:
            super().close()


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
    dbapi_connection.isolation_level = None  # the driver opens no transactions of its own; _begin_sqlite does
    _execute_all(dbapi_connection, SQLITE_PRAGMAS)


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads and then writes loses updates or fails at once: take the write lock first.
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _tune_mysql(dbapi_connection: Any, record: object) -> None:
    del record
    _execute_all(dbapi_connection, MYSQL_STATEMENTS)


def _execute_all(dbapi_connection: Any, statements: tuple[str, ...]) -> None:
    cursor = dbapi_connection.cursor()
    for statement in statements:
        cursor.execute(statement)
    cursor.close()
