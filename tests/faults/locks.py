"""Who has which row locked, and who waits for it."""

import sqlite3
from uuid import UUID

from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from db.connection import DatabaseManager
from holdfast.outbox import job_runs


async def is_locked(manager: DatabaseManager, run_id: UUID) -> bool:
    """Whether a transaction has the run's row locked; on SQLite, whether anybody writes."""
    if manager.engine.dialect.name == "sqlite":
        return _is_being_written(manager.engine.url.database)
    try:
        async with manager.session() as session:
            await session.execute(select(job_runs.c.id).where(job_runs.c.id == run_id).with_for_update(nowait=True))
    except DBAPIError:
        return True
    return False


def _is_being_written(path: str | None) -> bool:
    connection = sqlite3.connect(str(path), timeout=0)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False


async def count_waiting(manager: DatabaseManager) -> int:
    """Returns how many sessions of a PostgreSQL database wait for a lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with manager.session(read_only=True) as session:
        waiting: int = (await session.execute(text(query))).scalar_one()
    return waiting


async def backends_of(manager: DatabaseManager, name: str) -> list[int]:
    """Returns the process ids of the PostgreSQL sessions that sit idle in a transaction under this name."""
    query = "SELECT pid FROM pg_stat_activity WHERE application_name = :name AND state = 'idle in transaction'"
    async with manager.session(read_only=True) as session:
        return list((await session.execute(text(query), {"name": name})).scalars())


async def backends_of_runs(manager: DatabaseManager) -> list[int]:
    """Returns the process ids of the PostgreSQL sessions that sit in a batch of a run, between two statements."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name ~ '^holdfast .*-'"
        " AND state = 'idle in transaction'"
    )
    async with manager.session(read_only=True) as session:
        return list((await session.execute(text(query))).scalars())
