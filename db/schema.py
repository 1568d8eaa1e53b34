"""All tables at once, from the models: for tests and throwaway databases. What is kept is brought on by migrations."""

from collections.abc import Iterable

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Table, func, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine

import db.models  # noqa: F401 - registers the tables
from db.base import Base
from db.migrate import SCRIPTS, VERSION_TABLE
from db.urls import is_local, masked


class ResetRefused(Exception):  # noqa: N818
    """Tables would be dropped that somebody may need; the message is one line and shows no password.

    Args:
        reason: whose tables are not dropped, and why; what to do is added.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; pass force=True if all of it may be lost")
        self.reason = reason


async def create_tables(engine: AsyncEngine) -> None:
    """Make every table of the models that is missing; a database that was empty counts as migrated to this version."""

    def create(connection: Connection) -> None:
        was_empty = not _tables_of(connection)
        Base.metadata.create_all(connection)
        if was_empty:
            _version_of(connection).stamp(ScriptDirectory(str(SCRIPTS)), "head")

    async with engine.begin() as connection:
        await connection.run_sync(create)


async def drop_tables(engine: AsyncEngine, url: URL, *, force: bool = False) -> None:
    """Drop every table of the models, and the note of the revision.

    Args:
        engine: of the database.
        url: tells whether it is on this machine.
        force: also where the database is elsewhere or holds rows.

    Raises:
        ResetRefused: without ``force``.
    """

    def drop(connection: Connection) -> None:
        check_losses(connection, url, Base.metadata.sorted_tables, force=force)
        Base.metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))

    async with engine.begin() as connection:
        await connection.run_sync(drop)


def check_losses(connection: Connection, url: URL, tables: Iterable[Table], *, force: bool) -> dict[str, int]:
    """Return how many rows are lost when these tables are dropped, by table; those without any are left out.

    Args:
        connection: to the database.
        url: tells whether it is on this machine.
        tables: what is to be dropped, as far as it is there.
        force: the rows may be lost, wherever the database is.

    Raises:
        ResetRefused: without ``force``, where the database is elsewhere or holds rows.
    """
    if not force and not is_local(url):
        raise ResetRefused(f"DATABASE_URL {masked(url)} is not on this machine: its tables are not dropped")
    there = set(inspect(connection).get_table_names())
    counts = {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in tables
        if table.name in there
    }
    lost = {name: rows for name, rows in counts.items() if rows}
    if lost and not force:
        shown = ", ".join(f"{name} {rows:,}" for name, rows in lost.items())
        raise ResetRefused(f"DATABASE_URL {masked(url)} holds rows ({shown}): its tables are not dropped")
    return lost


def _tables_of(connection: Connection) -> list[Table]:
    there = set(inspect(connection).get_table_names())
    return [table for table in Base.metadata.sorted_tables if table.name in there]


def _version_of(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
