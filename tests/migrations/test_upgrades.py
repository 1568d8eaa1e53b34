"""Up, down and up again, alone and all at once; and whether the result is what the models say."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateTable

from db import migrate
from db.base import Base
from db.connection import DatabaseManager
from db.settings import DatabaseSettings
from tests.migrations.rows import fill, scalar, table_names
from tests.processes import CHECKOUT, clean_environment

MODEL_TABLES = {table.name for table in Base.metadata.sorted_tables}
CHECK_NAME = re.compile(r"CONSTRAINT (\w+) CHECK")
REVISIONS = [script.revision for script in ScriptDirectory(str(migrate.SCRIPTS)).walk_revisions()][::-1]


@pytest.fixture
async def manager(settings: DatabaseSettings) -> AsyncIterator[DatabaseManager]:
    """A pool of its own on the empty database."""
    made = DatabaseManager(settings)
    await made.connect(patience_s=10)
    yield made
    await made.close()


async def test_each_revision_forth_and_back_with_rows_in_the_tables(manager: DatabaseManager) -> None:
    for revision in REVISIONS:
        await migrate.upgrade(manager.settings, revision)
        assert await migrate.current_revision(manager) == revision
    await fill(manager)
    for revision in [*REVISIONS[-2::-1], "base"]:
        await migrate.downgrade(manager.settings, revision)
        assert await migrate.current_revision(manager) == (None if revision == "base" else revision)
    assert await table_names(manager) == {migrate.VERSION_TABLE}
    await migrate.upgrade(manager.settings)
    partitions = {"job_runs_history_default"} if manager.engine.dialect.name == "postgresql" else set()
    assert await table_names(manager) == {*MODEL_TABLES, *partitions, migrate.VERSION_TABLE}
    await fill(manager)


async def test_a_second_upgrade_changes_nothing(manager: DatabaseManager) -> None:
    await migrate.upgrade(manager.settings)
    task = await fill(manager)
    await migrate.upgrade(manager.settings)
    assert await scalar(manager, "SELECT count(*) FROM tasks") == 2
    assert await migrate.current_revision(manager) == migrate.head_revision()
    assert task


async def test_three_processes_upgrade_at_once(manager: DatabaseManager, database_url: str) -> None:
    words = [sys.executable, "-m", "worker", "db", "upgrade", "--json"]
    environment = clean_environment(DATABASE_URL=database_url)
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    processes = [
        await asyncio.create_subprocess_exec(*words, cwd=CHECKOUT, env=environment, **pipes)  # type: ignore[arg-type]
        for _ in range(3)
    ]
    for process in processes:
        out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert json.loads(out)["revision"] == migrate.head_revision()
    await migrate.require_current(manager)
    assert await scalar(manager, f"SELECT count(*) FROM {migrate.VERSION_TABLE}") == 1


async def test_the_versions_of_another_application_stand_beside_ours(manager: DatabaseManager) -> None:
    async with manager.session() as session:
        await session.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
        await session.execute(text("INSERT INTO alembic_version VALUES ('theirs')"))
    await migrate.upgrade(manager.settings)
    await migrate.downgrade(manager.settings, "base")
    assert await scalar(manager, "SELECT version_num FROM alembic_version") == "theirs"


async def test_the_migrations_make_what_the_models_say(manager: DatabaseManager) -> None:
    await migrate.upgrade(manager.settings)
    await asyncio.to_thread(command.check, migrate._config(manager.settings))


async def test_every_check_constraint_of_the_models_is_there(manager: DatabaseManager) -> None:
    """Alembic compares tables, columns, keys and indexes, but no CHECK constraints."""
    await migrate.upgrade(manager.settings)
    expected = {
        (table.name, name)
        for table in Base.metadata.sorted_tables
        for name in CHECK_NAME.findall(str(CreateTable(table).compile(dialect=manager.engine.dialect)))
    }
    assert ("tasks", "ck_tasks_status") in expected
    assert (("tasks", "ck_tasks_tags_json") in expected) is (manager.engine.dialect.name == "sqlite")

    def read(connection: Connection) -> set[tuple[str, str]]:
        inspector = inspect(connection)
        return {
            (table, str(check["name"]))
            for table in MODEL_TABLES
            for check in inspector.get_check_constraints(table)
            if (table, str(check["name"])) in expected or "json_valid" not in check["sqltext"]  # MariaDB's own
        }

    async with manager.engine.connect() as connection:
        assert await connection.run_sync(read) == expected


async def test_an_unknown_status_is_refused(manager: DatabaseManager) -> None:
    await migrate.upgrade(manager.settings)
    await fill(manager)
    with pytest.raises(DBAPIError, match="ck_tasks_status"):
        await change(manager, "UPDATE tasks SET status = 'LATER'")
    await change(manager, "UPDATE tasks SET status = 'CANCELLED'")


async def test_children_go_with_their_parents(manager: DatabaseManager) -> None:
    await migrate.upgrade(manager.settings)
    await fill(manager)
    await change(manager, "DELETE FROM users")
    assert await scalar(manager, "SELECT count(*) FROM tasks") == 0


async def test_the_way_back_keeps_finished_runs_and_no_attempt_without_its_run(manager: DatabaseManager) -> None:
    await migrate.upgrade(manager.settings)
    await fill(manager)
    await change(manager, "DELETE FROM job_runs")  # its attempt stays: the history may have the run
    assert await scalar(manager, "SELECT count(*) FROM job_attempts") == 1
    await migrate.downgrade(manager.settings, REVISIONS[0])
    assert await scalar(manager, "SELECT job_id FROM job_runs") == "h"
    assert await scalar(manager, "SELECT count(*) FROM job_attempts") == 0


async def change(manager: DatabaseManager, statement: str) -> None:
    async with manager.session() as session:
        await session.execute(text(statement))


async def test_a_database_without_our_tables_is_named(manager: DatabaseManager) -> None:
    assert await migrate.current_revision(manager) is None
    with pytest.raises(migrate.SchemaOutdated) as caught:
        await migrate.require_current(manager)
    newest = migrate.head_revision()
    assert str(caught.value) == (
        f"the database is at revision none but this version needs {newest}: run `python -m worker db upgrade`"
    )


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://nobody@localhost/x", ["JSONB", "TIMESTAMP WITH TIME ZONE", "PARTITION BY RANGE (id)"]),
        ("mysql://nobody@localhost/x", ["DATETIME(6)", "utf8mb4_0900_bin"]),
        ("mariadb://nobody@localhost/x", ["DATETIME(6)", "utf8mb4_nopad_bin"]),
    ],
)
async def test_the_statements_can_be_printed_for_a_database_administrator(
    url: str, words: list[str], tmp_path: Path
) -> None:
    sql = await printed(url, "head", tmp_path)
    assert all(f"CREATE TABLE {name} (" in sql for name in {*MODEL_TABLES, migrate.VERSION_TABLE})
    assert all(word in sql for word in words)


async def test_of_sqlite_only_the_first_statements_can_be_printed(tmp_path: Path) -> None:
    """The second migration drops a foreign key, for which SQLite's table has to be read and built anew."""
    url = "sqlite:////tmp/x.db"
    assert "strftime(" in await printed(url, REVISIONS[0], tmp_path)
    with pytest.raises(CommandError, match="requires a live database connection"):
        await printed(url, "head", tmp_path)


async def printed(url: str, revision: str, folder: Path) -> str:
    """The SQL of an upgrade from nothing."""
    config = migrate._config(DatabaseSettings(database_url=url, _env_file=None))
    with (folder / "upgrade.sql").open("w+") as file:
        config.output_buffer = file
        await asyncio.to_thread(command.upgrade, config, revision, sql=True)
        file.seek(0)
        return file.read()


async def test_the_embedded_database_migrates_itself(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "worker", "runs", "list", "--json"]
    for environment in (
        clean_environment(HOLDFAST_DATA_DIR=str(tmp_path / "new" / "data")),
        clean_environment(HOLDFAST_DATA_DIR=str(tmp_path / "memory"), DATABASE_URL=":memory:"),
    ):
        process = await asyncio.create_subprocess_exec(
            *words, cwd=tmp_path, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        assert (process.returncode, err) == (0, b"")
        assert json.loads(out) == {"runs": [], "next_cursor": None, "total": 0}
    assert (tmp_path / "new" / "data").stat().st_mode & 0o777 == 0o700
