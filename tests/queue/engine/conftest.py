"""Fixtures of the engine's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import skips
from tests.queue.engine.room import Room
from tests.queue.engine.serving import Jobs
from tests.servers import RedisServer


@pytest.fixture
def room(redis_url: str, tmp_path: Path) -> Iterator[Room]:
    """A room at the run's own, empty Redis."""
    with Room(redis_url, tmp_path / "room") as made:
        yield made


@pytest.fixture
def own_redis(pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    """A Redis for one test, which may reconfigure or end it."""
    with skips.made_or_skipped(RedisServer, pytestconfig) as server:
        yield server


@pytest.fixture
def own_room(own_redis: RedisServer, tmp_path: Path) -> Iterator[Room]:
    """A room at `own_redis`."""
    with Room(own_redis.url, tmp_path / "room") as made:
        yield made


@pytest.fixture
def jobs() -> Jobs:
    """Jobs for a worker in the test's own process."""
    return Jobs()
