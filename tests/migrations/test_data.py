"""Migrations with rows in the tables, printed statements, and what differs from the models."""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import (
    Connection,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    UniqueConstraint,
    inspect,
    text,
)

from db import migrate
from db.base import Base
from db.connection import DatabaseManager
from db.drift import find_drift
from db.settings import DatabaseSettings
from tests.migrations.rows import fill
from tests.migrations.test_upgrades import REVISIONS
from tests.servers import MariaDBServer, PostgresServer

KEPT = {
    "users": "id, username, email, is_active, created_at",
    "tasks": "id, title, status, user_id, completed_at, external_key, metadata_json, is_deleted, created_at",
    "import_rejects": "run_id, line, column_name, raw",
}


@pytest.fixture
async def manager(settings: DatabaseSettings) -> AsyncIterator[DatabaseManager]:
    made = DatabaseManager(settings)
    await made.connect(patience_s=10)
    yield made
    await made.close()


async def kept_rows(manager: DatabaseManager) -> dict[str, list[tuple[str, ...]]]:
    found = {}
    async with manager.session(read_only=True) as session:
        for table, columns in KEPT.items():
            rows = await session.execute(text(f"SELECT {columns} FROM {table} ORDER BY 1, 2"))
            found[table] = [tuple(map(str, row)) for row in rows]
    return found


async def test_every_step_down_and_up_keeps_the_rows(manager: DatabaseManager) -> None:
    await migrate.upgrade(manager.settings)
    await fill(manager)
    before = await kept_rows(manager)
    assert all(before.values())
    for revision in REVISIONS[-2::-1]:
        await migrate.downgrade(manager.settings, revision)
        assert await kept_rows(manager) == before, f"down to {revision}"
    for revision in REVISIONS[1:]:
        await migrate.upgrade(manager.settings, revision)
        assert await kept_rows(manager) == before, f"up to {revision}"
        assert await migrate.current_revision(manager) == revision
    assert await find_drift(manager) == []


async def test_printed_statements_make_the_same_tables(
    manager: DatabaseManager, database_url: str, request: pytest.FixtureRequest
) -> None:
    if manager.engine.dialect.name == "sqlite":
        with pytest.raises(migrate.UnknownRevision, match="requires a live database connection"):
            await asyncio.to_thread(migrate.upgrade_sql, manager.settings)
        script = await asyncio.to_thread(migrate.upgrade_sql, manager.settings, REVISIONS[0])
        with closing(sqlite3.connect(str(manager.engine.url.database))) as connection:
            connection.executescript(script)
        assert await migrate.current_revision(manager) == REVISIONS[0]
        await migrate.upgrade(manager.settings)
    else:
        script = await asyncio.to_thread(migrate.upgrade_sql, manager.settings)
        name = "postgres_server" if manager.engine.dialect.name == "postgresql" else "mariadb_server"
        server: PostgresServer | MariaDBServer = request.getfixturevalue(name)
        await asyncio.to_thread(server.execute, script, database_url)
    assert await migrate.is_current(manager)
    assert await find_drift(manager) == []
    await fill(manager)


DRIFTS = {
    "DROP INDEX ix_tasks_status_id": "tasks lacks the index ix_tasks_status_id",
    "CREATE INDEX ix_extra ON users (full_name)": "users has the unknown index ix_extra",
    "ALTER TABLE users ADD COLUMN extra INTEGER": "users has the unknown column extra",
    "DROP TABLE erasures": "the table erasures is missing",
}


async def test_what_differs_is_named(manager: DatabaseManager) -> None:
    await migrate.upgrade(manager.settings)
    dialect = manager.engine.dialect.name
    drifts = dict(DRIFTS)
    if dialect != "sqlite":
        drifts["ALTER TABLE tasks DROP CONSTRAINT ck_tasks_status"] = "tasks lacks the check ck_tasks_status"
        drifts["ALTER TABLE users ADD CONSTRAINT ck_x CHECK (username <> 'x')"] = "users has the unknown check ck_x"
    async with manager.session() as session:
        await session.execute(text("CREATE TABLE of_another_team (id INTEGER PRIMARY KEY)"))
        for statement in drifts:
            on_table = " ON tasks" if dialect == "mariadb" and statement.startswith("DROP INDEX") else ""
            await session.execute(text(statement + on_table))
    assert sorted(await find_drift(manager)) == sorted(drifts.values())


async def test_every_table_of_mariadb_compares_bytes(mariadb_url: str) -> None:
    manager = DatabaseManager(DatabaseSettings(database_url=mariadb_url, _env_file=None))
    await migrate.upgrade(manager.settings)
    query = (
        "SELECT table_name, table_collation FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_collation <> 'utf8mb4_nopad_bin'"
    )
    columns = (
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = DATABASE() "
        "AND collation_name NOT IN ('utf8mb4_nopad_bin', 'utf8mb4_bin')"  # the latter is of JSON
    )
    async with manager.session(read_only=True) as session:
        assert (await session.execute(text(query))).all() == []
        assert (await session.execute(text(columns))).all() == []
    await manager.close()


async def test_names_in_the_database_are_those_of_the_convention(manager: DatabaseManager) -> None:
    await migrate.upgrade(manager.settings)
    names_its_keys = manager.engine.dialect.name != "mariadb"  # there every primary key is called PRIMARY

    def read(connection: Connection) -> set[str | None]:
        inspector, found = inspect(connection), set()
        for table in Base.metadata.sorted_tables:
            listed: list[Any] = [*inspector.get_unique_constraints(table.name), *inspector.get_foreign_keys(table.name)]
            listed += [one for one in inspector.get_indexes(table.name) if not one.get("duplicates_constraint")]
            found |= {one["name"] for one in listed}
            if names_its_keys:
                found.add(inspector.get_pk_constraint(table.name)["name"])
        return found

    async with manager.engine.connect() as connection:
        found = await connection.run_sync(read)
    rules = [rule for table in Base.metadata.sorted_tables for rule in (*table.constraints, *table.indexes)]
    kinds = (UniqueConstraint, ForeignKeyConstraint, Index) + ((PrimaryKeyConstraint,) if names_its_keys else ())
    named = {str(rule.name) for rule in rules if isinstance(rule, kinds)}
    assert found == named
    assert all(re.fullmatch(r"(pk|uq|fk|ix)_\w+", name) and len(name) <= 63 for name in named)
