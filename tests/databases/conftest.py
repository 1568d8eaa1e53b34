"""A migrated and empty database on each engine, and the process's pool on it."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import ARRAY, Text, bindparam, delete, text

from db import migrate
from db.base import Base
from db.connection import DatabaseManager, close_database, initialize_database
from db.settings import DatabaseSettings
from tests.servers import MariaDBServer, PostgresServer


def migrated(url: str) -> str:
    asyncio.run(migrate.upgrade(DatabaseSettings(database_url=url, _env_file=None)))
    return url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated file, to be copied."""
    file = tmp_path_factory.mktemp("template") / "holdfast.db"
    migrated(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def migrated_postgresql(postgres_server: PostgresServer) -> str:
    """The URL of a migrated database that the tests share, one after the other."""
    return migrated(postgres_server.create_database())


@pytest.fixture(scope="session")
def migrated_mariadb(mariadb_server: MariaDBServer) -> str:
    """As `migrated_postgresql`."""
    return migrated(mariadb_server.create_database())


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseSettings:
    """The settings of a migrated database; the developer's `.env` is not read."""
    template = request.getfixturevalue(f"migrated_{request.param}")
    url = str(template)
    if request.param == "sqlite":
        url = f"sqlite:///{shutil.copy(template, tmp_path / 'holdfast.db')}"
    return DatabaseSettings(database_url=url, _env_file=None)


@pytest.fixture
async def manager(settings: DatabaseSettings) -> AsyncIterator[DatabaseManager]:
    """The process's pool on an empty migrated database; closed after the test, whatever the test did."""
    made = await initialize_database(settings, patience_s=10)
    await empty_tables(made)
    yield made
    await close_database()


MOST_BYTES_LEFT = 64 * 1024
GROWN = text("SELECT oid::regclass::text FROM pg_class WHERE relname = ANY(:names) AND relkind = 'r' "
             "AND pg_relation_size(oid) > :most").bindparams(bindparam("names", type_=ARRAY(Text())))  # fmt: skip


async def empty_tables(manager: DatabaseManager) -> None:
    """Delete all rows, and on PostgreSQL the pages that they leave behind: a test's few rows lie together, then."""
    tables = list(reversed(Base.metadata.sorted_tables))
    async with manager.session() as session:
        for table in tables:
            await session.execute(delete(table))
        if session.get_bind().dialect.name == "postgresql":
            names = [table.name for table in tables]
            if grown := list(await session.scalars(GROWN, {"names": names, "most": MOST_BYTES_LEFT})):
                await session.execute(text(f"TRUNCATE {', '.join(grown)} CASCADE"))
