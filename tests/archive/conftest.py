"""Fixtures of the tests of the archive: a migrated and empty database on each engine, with the pool open."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from db.connection import DatabaseManager
from jobs.settings import JobSettings
from tests.archive.models import GRAPH, tables_of
from tests.databases.conftest import (
    manager,
    migrated_mariadb,
    migrated_postgresql,
    migrated_sqlite,
    settings,
)

__all__ = ["graph", "job_settings", "manager", "migrated_mariadb", "migrated_postgresql", "migrated_sqlite", "settings"]


@pytest.fixture
def job_settings(tmp_path: Path) -> JobSettings:
    """Settings of the jobs, with a data folder of the test's own."""
    return JobSettings(holdfast_data_dir=tmp_path / "data", _env_file=None)


@pytest.fixture
async def graph(manager: DatabaseManager) -> AsyncIterator[DatabaseManager]:
    """The pool, with the tables of the graph."""
    async with tables_of(manager, GRAPH):
        yield manager
