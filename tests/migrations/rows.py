"""A row in every table, so that migrations meet data."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, func, insert, inspect, select, text

from db.base import Base
from db.connection import DatabaseManager
from db.models import (
    TASKS_ARCHIVE,
    ArchivePart,
    Control,
    Erasure,
    ImportReject,
    Installation,
    JobAttempt,
    JobRunRange,
    Task,
    TaskStatus,
    User,
    WorkerHeartbeat,
)
from holdfast.ids import uuid7
from holdfast.outbox import job_runs, job_runs_history

NOW = datetime(2026, 1, 31, 8, 30, 15, 123456, tzinfo=UTC)


async def fill(manager: DatabaseManager) -> UUID:
    """Put rows into every table of the models; returns the id of the task."""
    run, user, task = uuid7(), uuid7(), uuid7()
    when = {"started_at": NOW, "finished_at": NOW}
    rows: list[tuple[Any, dict[str, Any]]] = [
        (User, {"id": user, "username": "ada", "email": "ada@example.org"}),
        (Task, {"id": task, "title": "\U0001f600", "user_id": user, "external_key": "x", "metadata_json": {"a": [1]}}),
        (Task, {"title": "second", "user_id": user, "status": TaskStatus.COMPLETED, "completed_at": NOW}),
        (
            job_runs,
            {"id": run, "kind": "import_tasks", "queue": "q", "job_id": "j", "request": {}, "state": "running"}
            | {"enqueued_at": NOW, "due_at": NOW},
        ),
        (JobAttempt, {"run_id": run, "fence": 1, "attempt": 1, "worker_id": "w", "outcome": "retry", **when}),
        (ImportReject, {"run_id": run, "line": 2, "column": "title", "code": "c", "reason": "r", "raw": ",,"}),
        (
            WorkerHeartbeat,
            {"worker_id": "w", "host": "h", "pid": 1, "queue_home": "q", "started_at": NOW, "heartbeat_at": NOW},
        ),
    ]
    rows += [
        (
            job_runs_history,
            {"id": uuid7(), "kind": "import_tasks", "queue": "q", "job_id": "h", "request": {}, "state": "succeeded"}
            | {"enqueued_at": NOW, "due_at": NOW, "unique_key": "k"},
        ),
        (Control, {"scope": "queue", "name": "q", "max_running": 3}),
        (TASKS_ARCHIVE, {"id": uuid7(), "title": "old", "archived_at": NOW, "archive_run_id": run}),
        (
            ArchivePart,
            {"run_id": run, "number": 1, "table_name": "tasks", "file": "f", "rows": 1, "bytes": 9}
            | {"sha256": "0" * 64, "written_at": NOW},
        ),
        (Erasure, {"table_name": "tasks", "row_key": "k", "reason": "asked for", "erased_at": NOW}),
        (JobRunRange, {"run_id": run, "number": 0, "cursor": {}, "counters": {}}),
        (Installation, {"id": 1, "installation_id": uuid7(), "server": "s", "adopted_at": NOW}),
    ]
    async with manager.session() as session:
        for table, values in rows:
            await session.execute(insert(table).values(values))
    assert {table.name for table in Base.metadata.sorted_tables} == set(await counts(manager))
    assert all((await counts(manager)).values())
    return task


async def counts(manager: DatabaseManager) -> dict[str, int]:
    """How many rows each table of the models holds."""
    async with manager.session(read_only=True) as session:
        return {
            table.name: (await session.execute(select(func.count()).select_from(table))).scalar_one()
            for table in Base.metadata.sorted_tables
        }


async def table_names(manager: DatabaseManager) -> set[str]:
    """Every table of the database."""

    def read(connection: Connection) -> set[str]:
        return set(inspect(connection).get_table_names())

    async with manager.engine.connect() as connection:
        return await connection.run_sync(read)


async def scalar(manager: DatabaseManager, statement: str) -> object:
    """The one value that a statement gives."""
    async with manager.session(read_only=True) as session:
        return (await session.execute(text(statement))).scalar_one()
