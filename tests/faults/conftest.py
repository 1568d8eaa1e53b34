"""A trial on each engine."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.faults.trial import Trial, open_trial


@pytest.fixture
async def trial(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Trial]:
    """A trial; the test runs once on each engine."""
    async with open_trial(database_url, redis_url, tmp_path) as opened:
        yield opened


@pytest.fixture
async def sqlite_trial(sqlite_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Trial]:
    """A trial on SQLite, for what does not depend on the engine."""
    async with open_trial(sqlite_url, redis_url, tmp_path) as opened:
        yield opened


@pytest.fixture
async def postgres_trial(postgres_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Trial]:
    """A trial on PostgreSQL."""
    async with open_trial(postgres_url, redis_url, tmp_path) as opened:
        yield opened
