"""Rows that refer to each other, and rows with two parents of which one stays."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import ForeignKey, MetaData, Table, insert, update
from sqlalchemy.orm import Mapped, mapped_column

from db.archive_tables import archive_table
from db.archives.catalog import Catalog
from db.archives.family import Family, find_family
from db.base import BaseModel, SoftDeleteModel
from db.connection import DatabaseManager, get_async_session
from db.types import NAMING_CONVENTION
from holdfast.ids import uuid7
from holdfast.requests import EraseArchived
from jobs.archive_deleted import steps
from jobs.erase_archived import erase_archived
from jobs.outcomes import JobFailed
from jobs.settings import JobSettings
from tests.archive.runs import LONG_AGO, archive, context_of, rows_of
from tests.databases.runs import admitted

WEB = MetaData(naming_convention=NAMING_CONVENTION)


class Page(SoftDeleteModel):
    """Names its newest version, which belongs to it; may lie below another page."""

    __tablename__ = "pages"
    metadata = WEB

    newest_id: Mapped[UUID | None] = mapped_column(ForeignKey("versions.id", use_alter=True))
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("pages.id", ondelete="CASCADE"))


class Version(BaseModel):
    """Goes with its page."""

    __tablename__ = "versions"
    metadata = WEB

    page_id: Mapped[UUID] = mapped_column(ForeignKey(Page.id, ondelete="CASCADE"))


class Link(BaseModel):
    """Goes with the page that it is on, and keeps the one that it leads to."""

    __tablename__ = "links"
    metadata = WEB

    source_id: Mapped[UUID] = mapped_column(ForeignKey(Page.id, ondelete="CASCADE"))
    target_id: Mapped[UUID] = mapped_column(ForeignKey(Page.id))


class Bookmark(BaseModel):
    """Lives by itself."""

    __tablename__ = "bookmarks"
    metadata = WEB

    page_id: Mapped[UUID] = mapped_column(ForeignKey(Page.id))


PAGES, VERSIONS, LINKS, BOOKMARKS = (cast("Table", model.__table__) for model in (Page, Version, Link, Bookmark))
ARCHIVES = [archive_table(table) for table in (PAGES, VERSIONS, LINKS)]
CATALOG = Catalog.of(WEB)


@pytest.fixture(autouse=True)
async def web(manager: DatabaseManager) -> AsyncIterator[None]:
    async with manager.engine.begin() as connection:
        await connection.run_sync(WEB.create_all)
    try:
        yield
    finally:
        if not manager.writers_take_turns:  # SQLite drops no table of a circle; each test has a file of its own
            async with manager.engine.begin() as connection:
                await connection.run_sync(WEB.drop_all)


async def put(table: Table, **values: Any) -> UUID:
    """Put a row into a table; a page is due."""
    key, marks = uuid7(), {"is_deleted": True, "deleted_at": LONG_AGO} if table is PAGES else {}
    async with get_async_session() as session:
        await session.execute(insert(table).values(id=key, **marks, **values))
    return key


async def put_pages(count: int) -> list[UUID]:
    return [await put(PAGES) for _ in range(count)]


async def refer(page: UUID, **values: UUID) -> None:
    async with get_async_session() as session:
        await session.execute(update(PAGES).where(PAGES.c.id == page).values(**values))


async def keys(*tables: Table) -> set[UUID]:
    return {key for table in tables for key in await rows_of(table)}


@pytest.mark.parametrize("destination", ["tables", "files", "purge"])
async def test_rows_in_a_circle_stay_with_all_below_them_and_are_named(
    destination: str, job_settings: JobSettings
) -> None:
    circle, plain, above = await put_pages(3)
    newest, own = await put(VERSIONS, page_id=circle), await put(VERSIONS, page_id=plain)
    await refer(circle, newest_id=newest, parent_id=above)
    report = await archive(job_settings, catalog=CATALOG, tables=("pages",), destination=destination)
    assert (report.moved, report.kept, report.left) == ({"pages": 1, "versions": 1}, {"pages": 2}, {})
    assert await keys(PAGES, VERSIONS) == {circle, newest, above}
    assert await keys(*ARCHIVES) == ({plain, own} if destination == "tables" else set())
    assert {(row.key, row.by_table, row.by_key) for row in report.kept_rows} == {
        (str(circle), "versions", str(newest)),
        (str(above), "versions", str(newest)),
    }


async def test_what_hangs_below_a_circle_leaves_by_itself(job_settings: JobSettings) -> None:
    """The database would take the whole circle with one of its rows."""
    first, second, below, alone = await put_pages(4)
    await refer(first, parent_id=second)
    await refer(second, parent_id=first)
    await refer(below, parent_id=first)
    await refer(alone, parent_id=alone)
    report = await archive(job_settings, catalog=CATALOG)
    assert (report.moved, report.kept, report.left) == ({"pages": 2}, {"pages": 2}, {})
    assert (await keys(PAGES), await keys(*ARCHIVES)) == ({first, second}, {below, alone})


async def test_a_row_in_a_circle_is_not_erased(job_settings: JobSettings) -> None:
    page = (await put_pages(1))[0]
    newest = await put(VERSIONS, page_id=page)
    await refer(page, newest_id=newest)
    context = context_of(await admitted("ada"), job_settings)
    request = EraseArchived(table="pages", ids=[str(page)], reason="ticket")
    (refused,) = (await erase_archived(context, request, catalog=CATALOG)).refused
    assert refused.code == "referred_to"
    assert refused.message == (
        f"pages {page} and versions {newest} belong to a circle of references: set one of them to NULL first"
    )
    assert await keys(PAGES, VERSIONS) == {page, newest}


@pytest.mark.parametrize("batch_rows", [1, 100])
@pytest.mark.parametrize("source_stays", [True, False], ids=["one stays", "both leave"])
async def test_a_child_of_a_row_that_stays_keeps_its_other_parent(
    source_stays: bool, batch_rows: int, job_settings: JobSettings
) -> None:
    source, target = sorted(await put_pages(2))
    link = await put(LINKS, source_id=source, target_id=target)
    if source_stays:
        bookmark = await put(BOOKMARKS, page_id=source)
    report = await archive(job_settings, catalog=CATALOG, batch_rows=batch_rows)
    if source_stays:
        assert (report.moved, report.kept) == ({"pages": 0}, {"pages": 2})
        assert await keys(PAGES, LINKS) == {source, target, link}
        named = {(row.key, row.by_key) for row in report.kept_rows}
        assert named == {(str(source), str(bookmark)), (str(target), str(link))}
    else:
        assert report.moved == {"pages": 2, "links": 1}
        assert await keys(*ARCHIVES) == {source, target, link}


async def test_what_a_cascade_takes_undoes_the_batch(
    job_settings: JobSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were rows deleted in another order, some would be missing when their turn comes."""
    page = (await put_pages(1))[0]
    version = await put(VERSIONS, page_id=page)

    async def parents_first(*given: Any) -> Family:
        family = await find_family(*given)
        return replace(family, generations=family.generations[::-1])

    monkeypatch.setattr(steps, "find_family", parents_first)
    with pytest.raises(JobFailed, match="versions: 1 rows were to leave and 0 were there"):
        await archive(job_settings, catalog=CATALOG)
    assert (await keys(PAGES, VERSIONS), await keys(*ARCHIVES)) == ({page, version}, set())
