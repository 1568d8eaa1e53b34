"""How a transaction begins, so that one that was opened for reading cannot write.

Two options of a connection tell it. ``READING`` says that nothing will be written: SQLite takes no write lock then.
``READ_ONLY`` has the database see to it as well.
"""

from typing import Any, Final

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

READING: Final = "holdfast_reading"
READ_ONLY: Final = "holdfast_read_only"
_IS_FORBIDDEN: Final = "holdfast_writing_is_forbidden"


def reading_options(dialect: str, *, single_statements: bool) -> dict[str, Any]:
    """Return the options of an engine whose connections will only read, each at the cost of its statements.

    Args:
        dialect: the engine's name.
        single_statements: whether PostgreSQL may be spared a transaction around each.
    """
    return {READING: True, **single_options(dialect, single_statements=single_statements)}


def single_options(dialect: str, *, single_statements: bool) -> dict[str, Any]:
    """Return the options of an engine whose connections execute one statement each."""
    return {"isolation_level": "AUTOCOMMIT"} if single_statements and dialect == "postgresql" else {}


def read_only_options(dialect: str) -> dict[str, Any]:
    """Return the options of an engine whose connections cannot write."""
    return {READING: True, READ_ONLY: True, **({"postgresql_readonly": True} if dialect == "postgresql" else {})}


def begin_as_told(engine: Engine) -> None:
    """Attach the listener that begins the transactions of MySQL, MariaDB and SQLite; asyncpg begins PostgreSQL's."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "begin", _begin_sqlite)
    elif engine.dialect.name in {"mysql", "mariadb"}:
        event.listen(engine, "begin", _begin_mysql)


def _begin_sqlite(connection: Connection) -> None:
    _allow_or_not(connection, "PRAGMA query_only = ON", "PRAGMA query_only = OFF")
    # A deferred transaction that reads and then writes loses updates or fails at once: take the write lock first.
    reads = connection.get_execution_options().get(READING, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _begin_mysql(connection: Connection) -> None:
    # Not START TRANSACTION READ ONLY: on MariaDB, DDL commits that and goes through.
    _allow_or_not(connection, "SET SESSION TRANSACTION READ ONLY", "SET SESSION TRANSACTION READ WRITE")


def _allow_or_not(connection: Connection, forbid: str, allow: str) -> None:
    # Who reads says so each time, as the first statement on the connection; who writes undoes what a reader left.
    if connection.get_execution_options().get(READ_ONLY, False):
        connection.exec_driver_sql(forbid)
        connection.info[_IS_FORBIDDEN] = True
    elif connection.info.get(_IS_FORBIDDEN, False):
        connection.exec_driver_sql(allow)
        connection.info[_IS_FORBIDDEN] = False
