"""What `migrations/env.py` does for migrations that are yet to be written: tried with some made up for the test."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, String

from db import migrate
from db.connection import DatabaseManager
from db.settings import DatabaseSettings
from tests.migrations.rows import counts, fill, scalar, table_names

SCRIPT = '''"""A made up migration."""

import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {down_revision!r}


def upgrade() -> None:
    {body}
'''
REBUILD_PARENTS = """
    with op.batch_alter_table("users") as users:
        users.alter_column("username", type_=sa.String(200), existing_type=sa.String(150), nullable=False)
    with op.batch_alter_table("job_runs") as runs:
        runs.alter_column("kind", type_=sa.String(120), existing_type=sa.String(100), nullable=False)
"""
ORPHANS = """
    op.create_table("extra", sa.Column("x", sa.Integer()))
    op.execute("DELETE FROM users")
"""


@pytest.fixture
async def manager(settings: DatabaseSettings) -> AsyncIterator[DatabaseManager]:
    """A pool of its own on a migrated database with rows in it."""
    made = DatabaseManager(settings)
    await migrate.upgrade(settings)
    await fill(made)
    yield made
    await made.close()


class Scripts:
    """A copy of the migrations, to which the tests add theirs."""

    def __init__(self, folder: Path, settings: DatabaseSettings) -> None:
        self._versions = folder / "versions"
        shutil.copytree(migrate.SCRIPTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        self._config = Config()
        self._config.set_main_option("script_location", str(folder))
        self._config.attributes["settings"] = settings
        self._last = migrate.head_revision()

    def add(self, revision: str, body: str) -> None:
        script = SCRIPT.format(revision=revision, down_revision=self._last, body=body.strip())
        (self._versions / f"{revision}.py").write_text(script)
        self._last = revision

    async def upgrade(self) -> None:
        await asyncio.to_thread(command.upgrade, self._config, "head")


@pytest.fixture
def scripts(tmp_path: Path, settings: DatabaseSettings) -> Scripts:
    return Scripts(tmp_path / "migrations", settings)


async def test_a_rebuilt_parent_table_keeps_its_children(manager: DatabaseManager, scripts: Scripts) -> None:
    before = await counts(manager)
    scripts.add("parents", REBUILD_PARENTS)
    await scripts.upgrade()
    assert await migrate.current_revision(manager) == "parents"
    assert await counts(manager) == before
    assert (before["tasks"], before["job_attempts"]) == (2, 1)


async def test_without_our_care_sqlite_deletes_the_children_of_a_rebuilt_parent(sqlite_url: str) -> None:
    """Why `env.py` takes care: the same rebuild with foreign keys left on, as on any connection of the application."""
    settings = DatabaseSettings(database_url=sqlite_url, _env_file=None)
    await migrate.upgrade(settings)
    manager = DatabaseManager(settings)
    await fill(manager)

    def rebuild(connection: Connection) -> None:
        operations = Operations(MigrationContext.configure(connection))
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")  # too late: inside the transaction it does nothing
        with operations.batch_alter_table("users", recreate="always") as users:
            users.alter_column("username", type_=String(200), nullable=False)

    async with manager.engine.begin() as connection:
        await connection.run_sync(rebuild)
    assert await scalar(manager, "SELECT count(*) FROM users") == 1
    assert await scalar(manager, "SELECT count(*) FROM tasks") == 0
    await manager.close()


async def test_a_migration_that_leaves_orphans_is_rolled_back(sqlite_url: str, tmp_path: Path) -> None:
    settings = DatabaseSettings(database_url=sqlite_url, _env_file=None)
    await migrate.upgrade(settings)
    manager = DatabaseManager(settings)
    await fill(manager)
    before = await counts(manager)
    scripts = Scripts(tmp_path / "migrations", settings)
    scripts.add("orphans", ORPHANS)
    with pytest.raises(RuntimeError, match="2 rows lost their parent, the first in table tasks") as caught:
        await scripts.upgrade()
    assert type(caught.value).__name__ == "ForeignKeysViolated"
    assert await counts(manager) == before
    assert "extra" not in await table_names(manager)
    assert await migrate.current_revision(manager) == migrate.head_revision()
    await manager.close()


async def test_after_a_migration_that_fails_one_can_go_on(manager: DatabaseManager, scripts: Scripts) -> None:
    """Where DDL commits by itself, each migration that is through is on record; elsewhere all are taken back."""
    scripts.add("good", 'op.create_table("extra", sa.Column("x", sa.Integer(), primary_key=True))')
    scripts.add("bad", 'raise ValueError("no")')
    with pytest.raises(ValueError, match="no"):
        await scripts.upgrade()
    commits_itself = manager.engine.dialect.name == "mariadb"
    assert await migrate.current_revision(manager) == ("good" if commits_itself else migrate.head_revision())
    assert ("extra" in await table_names(manager)) is commits_itself
    with pytest.raises(ValueError, match="no"):  # and not "table exists"; nor does it wait for a lock left behind
        await scripts.upgrade()


async def test_a_revision_of_a_newer_version_is_named(manager: DatabaseManager, scripts: Scripts) -> None:
    scripts.add("newer", "pass")
    await scripts.upgrade()
    with pytest.raises(migrate.SchemaOutdated, match="is at revision newer but this version needs"):
        await migrate.require_current(manager)
