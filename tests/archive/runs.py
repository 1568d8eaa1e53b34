"""Runs of the archive within the test's own process, and the rows that they are about."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from sqlalchemy import Table, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.catalog import Catalog
from db.archives.drift import find_shape
from db.archives.hashing import prepare, row_hash
from db.connection import get_async_session
from db.models import TASKS_ARCHIVE, ArchivePart, Installation, Task, User
from db.repositories import installation
from holdfast.ids import uuid7
from holdfast.requests import ArchiveDeleted, ArchiveReport
from jobs.archive_deleted import archive_deleted
from jobs.archive_files import lines_of, part_of
from jobs.context import RunContext
from jobs.settings import JobSettings
from tests.databases.runs import admitted
from worker.ledger import Admitted

IN_ONE_STATEMENT = {"render_nulls": True}
"""Without it the ORM makes a statement for each run of rows that are empty in the same columns."""
LONG_AGO = datetime(2025, 1, 31, 8, 30, 15, 123456, tzinfo=UTC)


async def make_tasks(count: int, *, deleted: Iterable[int] = (), at: datetime = LONG_AGO) -> list[UUID]:
    """Make tasks of one user, some of them soft-deleted; returns their ids."""
    user, gone = uuid7(), set(deleted)
    rows = [task_row(user, number, at if number in gone else None) for number in range(count)]
    async with get_async_session() as session:
        await session.execute(insert(User).values(id=user, username=f"ada-{user}"))
        for start in range(0, count, 500):
            await session.execute(insert(Task), rows[start : start + 500], execution_options=IN_ONE_STATEMENT)
    return [row["id"] for row in rows]


def task_row(user: UUID, number: int, deleted_at: datetime | None) -> dict[str, Any]:
    """One task, with something in every column; each 7th has an instant of its own."""
    return {
        "id": uuid7(),
        "title": f"task {number} \U0001f600 \"quoted\" 'so' \\ and\nlines",
        "description": None if number % 3 else "\u00e4" * (number % 50),
        "user_id": user,
        "external_key": f"key-{user}-{number}",
        "is_deleted": deleted_at is not None,
        "deleted_at": None if deleted_at is None else deleted_at + timedelta(seconds=number // 7),
        "metadata_json": {"number": number, "nested": [{"a": None}]} if number % 2 else None,
        "tags": ["one", "two"] if number % 5 else None,
        "created_by": "importer",
    }


def context_of(given: Admitted, settings: JobSettings, **more: Any) -> RunContext:
    """The handle of an admitted run."""
    return RunContext(given.run_id, "archive_deleted", given.attempt, given.fence, settings, **more)


async def archive(
    settings: JobSettings, *, catalog: Catalog | None = None, run_id: UUID | None = None, **fields: Any
) -> ArchiveReport:
    """Run the archive to its end, as a run of its own."""
    context = context_of(await admitted("ada", run_id=run_id), settings)
    return await archive_deleted(context, ArchiveDeleted(**fields), catalog=catalog)


async def keys_in_files(settings: JobSettings) -> set[str]:
    """The ids of all rows in the files that are listed."""
    async with get_async_session(read_only=True) as session:
        parts = [part_of(settings, row) for row in await session.scalars(select(ArchivePart))]
    return {json.loads(line)["id"] for part in parts for line in lines_of(part)}


async def rows_of(table: Table) -> dict[Any, dict[str, Any]]:
    """Every row of a table by its id."""
    async with get_async_session(read_only=True) as session:
        return {row.id: dict(row._mapping) for row in await session.execute(select(table))}


async def checksum_of_archive() -> str:
    """The checksum of all archived tasks, computed again, as a report tells it."""
    async with get_async_session() as session:
        await prepare(session)
        types = (await find_shape(session, Catalog.of(), cast("Table", Task.__table__), archived=True)).shape.types
        columns = [TASKS_ARCHIVE.c[column.name] for column in Task.__table__.columns]
        return str(sum(int(row[0]) for row in await session.execute(select(row_hash(session, columns, types)))))


async def count(table: Table) -> int:
    """How many rows a table has."""
    async with get_async_session(read_only=True) as session:
        return int((await session.execute(select(func.count()).select_from(table))).scalar_one())


async def adopt_copy(session: AsyncSession) -> None:
    """Let the database be one that was copied from elsewhere, and adopted."""
    await installation.adopt(session)
    await session.execute(update(Installation).values(server="elsewhere", addresses=["elsewhere"]))
    await installation.adopt(session)
