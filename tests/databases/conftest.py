"""A migrated database on each engine, and the process's pool on it."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import migrate
from db.connection import DatabaseManager, close_database, initialize_database
from db.settings import DatabaseSettings


@pytest.fixture
def settings(database_url: str) -> DatabaseSettings:
    """The settings of an empty database; the developer's `.env` is not read."""
    return DatabaseSettings(database_url=database_url, _env_file=None)


@pytest.fixture
async def manager(settings: DatabaseSettings) -> AsyncIterator[DatabaseManager]:
    """The process's pool on a migrated database; closed after the test, whatever the test did."""
    await migrate.upgrade(settings)
    yield await initialize_database(settings, patience_s=10)
    await close_database()


@pytest.fixture
def engine(manager: DatabaseManager) -> AsyncEngine:
    return manager.engine
