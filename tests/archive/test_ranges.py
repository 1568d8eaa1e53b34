"""MariaDB takes rows by ranges of the key: each batch is done once, whatever else lies in the archive."""

from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import MetaData, Table, event, insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import archive_table
from db.archives.catalog import Catalog
from db.base import SoftDeleteModel
from db.connection import DatabaseManager
from db.types import NAMING_CONVENTION
from holdfast.ids import uuid7
from holdfast.progress import Progress
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted import archive_deleted
from jobs.settings import JobSettings
from tests.archive.runs import LONG_AGO, archive, context_of, count, rows_of
from tests.databases.engines import ON_MARIADB
from tests.databases.runs import admitted

ALONE = MetaData(naming_convention=NAMING_CONVENTION)
pytestmark = ON_MARIADB


class Note(SoftDeleteModel):
    """Without children, and without an index for what is due: it is walked by its key again and again."""

    __tablename__ = "notes"
    metadata = ALONE


NOTES = cast("Table", Note.__table__)
NOTES_ARCHIVE = archive_table(NOTES)
CATALOG = Catalog.of(ALONE)


@pytest.fixture
async def copies(manager: DatabaseManager) -> AsyncIterator[list[str]]:
    """The tables; lists each statement that puts rows into the archive."""
    seen: list[str] = []

    def note(*executed: Any) -> None:
        if executed[2].startswith("INSERT INTO notes_archive"):
            seen.append(executed[2])

    async with manager.engine.begin() as connection:
        await connection.run_sync(ALONE.create_all)
    event.listen(manager.engine.sync_engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(manager.engine.sync_engine, "before_cursor_execute", note)
        async with manager.engine.begin() as connection:
            await connection.run_sync(ALONE.drop_all)


async def make_notes(manager: DatabaseManager, number: int) -> list[UUID]:
    ids = [uuid7() for _ in range(number)]
    async with manager.session() as session:
        await session.execute(insert(NOTES), [{"id": key} for key in ids])
        await delete_notes(session, ids)
    return ids


async def delete_notes(session: AsyncSession, ids: list[UUID], *, is_deleted: bool = True) -> None:
    values = {"is_deleted": is_deleted, "deleted_at": LONG_AGO if is_deleted else None}
    await session.execute(update(NOTES).where(NOTES.c.id.in_(ids)).values(values))


@pytest.mark.parametrize(
    ("number", "step", "batch_rows", "connections", "batches"),
    [(500, 2, 60, 1, 5), (600, 3, 30, 2, 8)],
    ids=["one", "two"],
)
async def test_copies_of_another_run_lie_between_its_own(
    copies: list[str],
    manager: DatabaseManager,
    job_settings: JobSettings,
    number: int,
    step: int,
    batch_rows: int,
    connections: int,
    batches: int,
) -> None:
    ids = await make_notes(manager, number)
    own = ids[::step]
    async with manager.session() as session:
        await delete_notes(session, own, is_deleted=False)
    assert (await archive(job_settings, catalog=CATALOG)).moved == {"notes": number - len(own)}
    async with manager.session() as session:
        await delete_notes(session, own)
    copies.clear()
    report = await archive(job_settings, catalog=CATALOG, batch_rows=batch_rows, connections=connections)
    assert (report.moved, report.left) == ({"notes": len(own)}, {})
    assert len(copies) == report.batches == batches
    assert (await count(NOTES), set(await rows_of(NOTES_ARCHIVE))) == (0, set(ids))


async def test_a_second_walk_meets_copies_of_its_own_run(
    copies: list[str], manager: DatabaseManager, job_settings: JobSettings
) -> None:
    ids = await make_notes(manager, 300)
    async with manager.session() as session:
        await delete_notes(session, ids[40:42])

        async def let_go(progress: Progress) -> None:
            if progress.done == len(ids) - 2:
                await session.commit()

        context = context_of(await admitted("ada"), job_settings, publish=let_go)
        report = await archive_deleted(context, ArchiveDeleted(batch_rows=100), catalog=CATALOG)
    assert (report.moved, report.left) == ({"notes": 300}, {})
    assert len(copies) == report.batches == 4
    assert (await count(NOTES), set(await rows_of(NOTES_ARCHIVE))) == (0, set(ids))
