"""A database that is there and has this version's tables, for the length of a command."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from db import migrate
from db.connection import DatabaseManager, close_database, initialize_database
from worker.cli.terminal import wrong_usage
from worker.settings import Settings


def make_data_dir(settings: Settings) -> None:
    """Make the data folder, with mode 0700, if it is missing.

    Raises:
        Failure: it cannot be made, is no folder, or cannot be written to.
    """
    folder = settings.holdfast_data_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = "is a file" if isinstance(error, FileExistsError) else f"cannot be made ({error.strerror})"
    else:
        reason = "" if os.access(folder, os.W_OK | os.X_OK) else "cannot be written to"
    if reason:
        raise wrong_usage(f"HOLDFAST_DATA_DIR={folder} {reason}; name a folder that this user may write to")


@asynccontextmanager
async def open_database(settings: Settings) -> AsyncIterator[DatabaseManager]:
    """Open the pool; the embedded SQLite (or one in memory) is migrated, any other database must be up to date.

    Raises:
        DatabaseUnavailable: no connection.
        SchemaOutdated: it needs ``db upgrade``.
    """
    if settings.database_is_embedded:
        make_data_dir(settings)
    manager = await initialize_database(settings)
    try:
        if settings.database_migrates_itself and not await migrate.is_current(manager):
            await migrate.upgrade(settings)
        await migrate.require_current(manager)
        yield manager
    finally:
        await close_database()
