"""A database that is there and has this version's tables, for the length of a command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from db import migrate
from db.connection import DatabaseManager, close_database, initialize_database
from worker.settings import Settings


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[DatabaseManager]:
    """Open the pool; the embedded SQLite is migrated, any other database must be up to date.

    Raises:
        DatabaseUnavailable: no connection.
        SchemaOutdated: it needs ``db upgrade``.
    """
    if settings.database_is_embedded:
        settings.holdfast_data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    manager = await initialize_database(settings)
    try:
        if settings.database_is_embedded and await migrate.current_revision(manager) != migrate.head_revision():
            await migrate.upgrade(settings)
        await migrate.require_current(manager)
        yield manager
    finally:
        await close_database()
