"""Fixtures for all tests: a clean environment, servers of our own, fresh databases."""

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import skips
from tests.forks import Forks
from tests.processes import WorkerProcess
from tests.servers import MariaDBServer, PostgresServer, RedisServer

# What a developer's shell may hold and a test must not see; the last are read by the drivers themselves.
SETTINGS = {"DATABASE_URL", "REDIS_URL", "IMPORT_ROOTS", "SQL_ECHO", "DEBUG"}
SETTING_PREFIXES = ("HOLDFAST_", "DATABASE_", "POSTGRES_", "PG", "MYSQL_")


def pytest_configure(config: pytest.Config) -> None:
    """Lets the tests run in a checkout that belongs to somebody else: what the last run had found is not kept."""
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestCacheWarning")
    gc.disable()  # until all is collected
    unusable_folder = "The database setting is not configured"
    config.addinivalue_line("filterwarnings", f"ignore:{unusable_folder}:hypothesis.errors.HypothesisWarning")


def pytest_collection_finish() -> None:
    """Takes what was imported and collected out of the garbage collector's rounds: it stays until the end."""
    gc.freeze()
    gc.enable()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tells the run's main process what was missing here."""
    skips.hand_over(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hears from another process what was missing there (pytest-xdist)."""
    skips.take_over(node.config, getattr(node, "workeroutput", {}))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Adds the counts of missing servers after everything that pytest itself has to say."""
    yield
    skips.summarize(terminalreporter, config)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Removes the settings of the developer's own Holdfast and gives each test a data folder of its own."""
    for name in list(os.environ):
        if name in SETTINGS or name.startswith(SETTING_PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOLDFAST_DATA_DIR", str(tmp_path / "data"))


@pytest.fixture(scope="session", autouse=True)
def quick_start() -> Iterator[None]:
    """Forks the workers of the tests, where that is as good as a new Python: on macOS it is not."""
    if sys.platform != "linux":
        yield
        return
    with Forks() as WorkerProcess.quick_start:
        yield
    WorkerProcess.quick_start = None


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """The run's PostgreSQL, started by the first test that asks for it; a test that ends it takes one of its own."""
    with skips.made_or_skipped(PostgresServer, pytestconfig) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server(pytestconfig: pytest.Config) -> Iterator[MariaDBServer]:
    """The run's MariaDB, as `postgres_server`."""
    with skips.made_or_skipped(MariaDBServer, pytestconfig) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    """The run's Redis, as `postgres_server`."""
    with skips.made_or_skipped(RedisServer, pytestconfig) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis, database 0."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'holdfast.db'}"


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database, dropped after the test."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer) -> Iterator[str]:
    """The URL of an empty MariaDB database, dropped after the test."""
    url = mariadb_server.create_database()
    yield url
    mariadb_server.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database; the test runs once on each engine."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url", "mariadb": "mariadb_url"}[request.param]
    return str(request.getfixturevalue(fixture))
