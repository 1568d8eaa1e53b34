"""Bring a database to this version of the tables, and tell which version it has."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from db.settings import DatabaseSettings

if TYPE_CHECKING:
    from db.connection import DatabaseManager

SCRIPTS = Path(__file__).resolve().parent.parent / "migrations"
VERSION_TABLE = "holdfast_alembic_version"


class SchemaOutdated(Exception):  # noqa: N818
    """The database's tables are not of this version; the message says what to run."""


_one_at_a_time = threading.Lock()  # Alembic's context is a global of the process


def _run(operation: Callable[[Config, str], None], settings: DatabaseSettings, revision: str) -> None:
    # In a thread, because Alembic's env.py runs an event loop of its own.
    with _one_at_a_time:
        operation(_config(settings), revision)


def _config(settings: DatabaseSettings) -> Config:
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["settings"] = settings
    return config


def head_revision() -> str:
    """Return the newest revision that this checkout knows."""
    head = ScriptDirectory(str(SCRIPTS)).get_current_head()
    assert head is not None  # noqa: S101 - the checkout has a first migration
    return head


async def upgrade(settings: DatabaseSettings, revision: str = "head") -> None:
    """Run the migrations up to ``revision``; concurrent calls wait for each other."""
    await asyncio.to_thread(_run, command.upgrade, settings, revision)


async def downgrade(settings: DatabaseSettings, revision: str) -> None:
    """Take migrations back, down to ``revision`` (``base`` for all of them)."""
    await asyncio.to_thread(_run, command.downgrade, settings, revision)


async def current_revision(manager: "DatabaseManager") -> str | None:
    """Return the revision that the database has; None when it was never migrated."""

    def read(connection: Connection) -> str | None:
        return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()

    async with manager.reader() as connection:
        return await connection.run_sync(read)


async def require_current(manager: "DatabaseManager") -> None:
    """Check that the database has this checkout's tables.

    Raises:
        SchemaOutdated: it has others, or none.
    """
    found, wanted = await current_revision(manager), head_revision()
    if found != wanted:
        raise SchemaOutdated(
            f"the database is at revision {found or 'none'} but this version needs {wanted}: "
            "run `python -m worker db upgrade`"
        )
