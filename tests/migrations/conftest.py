"""An empty database on each engine, and its settings."""

import pytest

from db.settings import DatabaseSettings


@pytest.fixture
def settings(database_url: str) -> DatabaseSettings:
    """The settings of an empty database; the developer's `.env` is not read."""
    return DatabaseSettings(database_url=database_url, _env_file=None)
