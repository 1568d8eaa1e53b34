"""Which database session works on a run, so that whoever takes the run over can end that session.

A worker that is frozen in the middle of a transaction keeps its rows locked for as long as it is frozen. No timeout of
the server helps where it stopped while sending: the server waits for the rest. So each transaction on a run carries
the run's id and fence where the server shows them to others: PostgreSQL as its application name, MySQL and MariaDB as
a named lock. On SQLite there is no server that could end a session.
"""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BindParameter, ColumnElement, Connection, Text, bindparam, func, select, text, true
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.pool import PoolResetState

from db.errors import mysql_code

MYSQL_DIALECTS = frozenset({"mysql", "mariadb"})
NO_SUCH_THREAD = 1094
MOST_SHARES = 8
"""Of one run, each in a session of its own."""
_NAMES = "holdfast_names"
"""Where a connection's own dictionary keeps the names under which it is shown."""


def run_name(run_id: UUID, fence: int, share: int | None = None) -> str:
    """Return the name of a session that works on one run; at most 63 characters, as PostgreSQL keeps.

    Args:
        run_id: the run's.
        fence: of the attempt.
        share: its number, where the session works on one of several shares of the run: MySQL gives a name to one
            session at a time.
    """
    return f"holdfast {run_id} {fence}" + ("" if share is None else f".{share}")


def run_names(run_id: UUID, fence: int) -> list[str]:
    """Return all names of sessions in which one attempt of a run may be at work."""
    return [run_name(run_id, fence, share) for share in (None, *range(MOST_SHARES))]


def worker_name(worker_id: str, purpose: str) -> str:
    """Return the name of a session in which a worker moves many runs at once."""
    return f"holdfast {hashlib.sha256(worker_id.encode()).hexdigest()[:24]} {purpose}"


async def name_session(session: AsyncSession, name: str) -> None:
    """Show under ``name``, until its transaction is over, what a session of MySQL works on, by a statement of its own.

    Where a statement locks the run it can do so on the way: see ``name_columns``.
    """
    if session.get_bind().dialect.name in MYSQL_DIALECTS:
        await session.run_sync(_name_session, name)


def _name_session(session: Session, name: str) -> None:
    connection = session.connection()
    with kept_name(connection, name):
        connection.execute(text("SELECT GET_LOCK(:name, 0)"), {"name": name})


@contextmanager
def kept_name(connection: Connection, name: str) -> Iterator[None]:
    """Note a name that a statement of the block gives to a session, so that MySQL lets it go when its time is over."""
    _note(connection, name)
    yield
    _note(connection, name)  # a statement that found its connection lost has gone to another one (db.lost_connections)


def _note(connection: Connection, name: str) -> None:
    if connection.dialect.name in MYSQL_DIALECTS:
        connection.info.setdefault(_NAMES, {})[name] = True


def forget_names(dbapi_connection: Any, record: Any, reset_state: PoolResetState) -> None:
    """Let the names of a session go when its connection comes back to the pool: a listener of MySQL's pools.

    Not before: until its transaction has ended, whoever takes the run over must find the session.
    """
    if record is None or not reset_state.asyncio_safe:
        return  # the connection is closed, and the server lets the names go
    cursor = None
    for name in record.info.pop(_NAMES, ()):
        cursor = cursor or dbapi_connection.cursor()
        cursor.execute("DO RELEASE_LOCK(%s)", (name,))
    if cursor is not None:
        cursor.close()


def name_columns(dialect: str, name: str | BindParameter[str]) -> list[ColumnElement[Any]]:
    """Return what the statement that locks the run has to select as well, so that it names the session on the way.

    On PostgreSQL the name is local to the transaction: it works through PgBouncer and ends by itself. On MySQL it has
    to be noted by ``kept_name``.
    """
    if dialect == "postgresql":
        return [func.set_config("application_name", name, true()).label("session_name")]
    if dialect in MYSQL_DIALECTS:
        return [func.get_lock(name, 0).label("session_name")]
    return []


async def end_sessions(session: AsyncSession, names: Sequence[str]) -> bool:
    """End the sessions that work under these names; returns whether there was one.

    Their transactions are rolled back. The database's user may end its own sessions, which is all that is needed.
    """
    dialect = session.get_bind().dialect.name
    if dialect == "postgresql":
        query = text(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = ANY(:names)"
        )
        query = query.bindparams(bindparam("names", type_=ARRAY(Text())))
        return bool((await session.execute(query, {"names": list(names)})).scalar_one())
    if dialect not in MYSQL_DIALECTS:
        return False
    threads = (await session.execute(select(*(func.is_used_lock(name) for name in names)))).one()
    found = {int(thread) for thread in threads if thread is not None}
    for thread in found:
        try:
            await session.execute(text(f"KILL {thread}"))
        except SQLAlchemyError as error:
            if mysql_code(error) != NO_SUCH_THREAD:  # it has ended by itself
                raise
    return bool(found)
