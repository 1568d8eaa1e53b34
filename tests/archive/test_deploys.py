"""A deploy between two attempts of a run brings other models than those with which the run began."""

from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import ForeignKey, MetaData, Table, insert, select
from sqlalchemy.orm import Mapped, mapped_column

from db.archive_tables import archive_table
from db.archives.catalog import Catalog, Reference
from db.base import BaseModel, SoftDeleteModel
from db.connection import DatabaseManager, get_async_session
from db.models import JobRunRange
from db.types import NAMING_CONVENTION
from holdfast.ids import uuid7
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted import archive_deleted, sizes
from jobs.outcomes import JobFailed, RunInterrupted
from jobs.settings import JobSettings
from tests.archive.runs import LONG_AGO, context_of, count, rows_of
from tests.databases.runs import admitted
from worker.ledger import Admitted

ROWS = 1200
OLD, NEW = (MetaData(naming_convention=NAMING_CONVENTION) for _ in range(2))


class Sheet(SoftDeleteModel):
    """There before the deploy."""

    __tablename__ = "sheets"
    metadata = OLD

    text: Mapped[str]


class Line(BaseModel):
    """A child of the sheets that the deploy has brought."""

    __tablename__ = "lines"
    metadata = NEW

    sheet_id: Mapped[UUID] = mapped_column(ForeignKey(Sheet.id, ondelete="CASCADE"))


class Folio(SoftDeleteModel):
    """On its own."""

    __tablename__ = "folios"
    metadata = NEW


SHEETS, LINES, FOLIOS = (cast("Table", model.__table__) for model in (Sheet, Line, Folio))
SHEETS_ARCHIVE, LINES_ARCHIVE, FOLIOS_ARCHIVE = map(archive_table, (SHEETS, LINES, FOLIOS))
SHEETS_ALONE = Catalog({"sheets": SHEETS}, ())
FOLIOS_ALONE = Catalog({"folios": FOLIOS}, ())
TOGETHER = Catalog({"folios": FOLIOS, "sheets": SHEETS}, (Reference(LINES, SHEETS, ("sheet_id",), ("id",), owns=True),))
DELETED = {"is_deleted": True, "deleted_at": LONG_AGO}


@pytest.fixture(autouse=True)
async def old_tables(manager: DatabaseManager) -> AsyncIterator[None]:
    """Those from before the deploy, with sheets that are due; all are dropped at the end."""
    async with manager.engine.begin() as connection:
        await connection.run_sync(OLD.create_all)
    try:
        async with manager.session() as session:
            await session.execute(insert(SHEETS), [{"id": uuid7(), "text": "t" * 200, **DELETED} for _ in range(ROWS)])
        yield
    finally:
        async with manager.engine.begin() as connection:
            await connection.run_sync(NEW.drop_all)
            await connection.run_sync(OLD.drop_all)


async def deploy(manager: DatabaseManager) -> None:
    """Bring the new tables, with one row each; every sheet that is there gets a line."""
    async with manager.engine.begin() as connection:
        await connection.run_sync(NEW.create_all)
    lines = [{"id": uuid7(), "sheet_id": key} for key in await rows_of(SHEETS)]
    async with manager.session() as session:
        await session.execute(insert(LINES), lines)
        await session.execute(insert(FOLIOS).values(id=uuid7(), **DELETED))


async def stop_in_its_middle(
    given: Admitted, settings: JobSettings, request: ArchiveDeleted, catalog: Catalog
) -> set[UUID]:
    """Returns the sheets that the run has left."""
    looks = iter(range(4))
    context = context_of(given, settings, should_stop=lambda: next(looks, None) is None)
    with pytest.raises(RunInterrupted):
        await archive_deleted(context, request, catalog=catalog)
    left = set(await rows_of(SHEETS))
    assert 0 < len(left) < ROWS
    return left


@pytest.mark.parametrize("connections", [1, 2])
@pytest.mark.parametrize("fields", [{}, {"batch_rows": 40}], ids=["sized by time", "fixed"])
async def test_a_table_that_has_got_children_goes_on_with_them(
    fields: dict[str, Any],
    connections: int,
    manager: DatabaseManager,
    job_settings: JobSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizes, "FIRST_PAGES", 4)
    monkeypatch.setattr(sizes, "MOST_ROWS", 10)
    given, request = await admitted("ada"), ArchiveDeleted(connections=connections, **fields)
    left = await stop_in_its_middle(given, job_settings, request, SHEETS_ALONE)
    await deploy(manager)
    report = await archive_deleted(context_of(given, job_settings), request, catalog=TOGETHER)
    assert (report.moved, report.left) == ({"sheets": ROWS, "lines": len(left)}, {})
    assert [await count(table) for table in (SHEETS, LINES)] == [0, 0]
    assert [await count(table) for table in (SHEETS_ARCHIVE, LINES_ARCHIVE)] == [ROWS, len(left)]
    # A table that has come with the deploy is left to the next run.
    assert (report.due, await count(FOLIOS)) == ({"sheets": ROWS}, 1)
    async with get_async_session() as session:
        assert (await session.execute(select(JobRunRange))).all() == []


@pytest.mark.parametrize("fields", [{}, {"batch_rows": 40}], ids=["sized by time", "fixed"])
async def test_the_tables_come_in_another_order(
    fields: dict[str, Any], manager: DatabaseManager, job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What two connections have begun is gone on with."""
    monkeypatch.setattr(sizes, "FIRST_PAGES", 4)
    monkeypatch.setattr(sizes, "MOST_ROWS", 10)
    async with manager.engine.begin() as connection:
        await connection.run_sync(NEW.create_all, tables=[FOLIOS, FOLIOS_ARCHIVE])
    async with manager.session() as session:
        await session.execute(insert(FOLIOS), [{"id": uuid7(), **DELETED} for _ in range(100)])
    before, after = (
        Catalog({table.name: table for table in order}, ()) for order in ((SHEETS, FOLIOS), (FOLIOS, SHEETS))
    )
    given, request = await admitted("ada"), ArchiveDeleted(connections=2, **fields)
    for catalog in (before, after):
        await stop_in_its_middle(given, job_settings, request, catalog)
        assert await count(FOLIOS) == 100
    report = await archive_deleted(context_of(given, job_settings), request, catalog=after)
    assert (report.moved, report.left) == ({"sheets": ROWS, "folios": 100}, {})
    assert [await count(table) for table in (SHEETS_ARCHIVE, FOLIOS_ARCHIVE)] == [ROWS, 100]


async def test_a_table_that_has_gone_is_named(manager: DatabaseManager, job_settings: JobSettings) -> None:
    given, request = await admitted("ada"), ArchiveDeleted(batch_rows=40)
    left = await stop_in_its_middle(given, job_settings, request, SHEETS_ALONE)
    await deploy(manager)
    with pytest.raises(JobFailed, match=r"^sheets: the run has begun with it, and no mapped model has it") as failed:
        await archive_deleted(context_of(given, job_settings), request, catalog=FOLIOS_ALONE)
    assert failed.value.code == "unknown_table"
    assert (set(await rows_of(SHEETS)), await count(FOLIOS)) == (left, 1)
