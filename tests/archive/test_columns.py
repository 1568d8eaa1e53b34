"""Columns that the database fills by itself, or that came later: their rows leave, and come back."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import Computed, Identity, Integer, MetaData, Numeric, Table, insert, text, update
from sqlalchemy.orm import Mapped, mapped_column

from db.archive_tables import archive_table
from db.archives.catalog import Catalog
from db.base import Base, SoftDeleteModel
from db.connection import DatabaseManager, get_async_session
from db.mixins import SoftDeleteMixin
from db.types import NAMING_CONVENTION
from holdfast.ids import uuid7
from jobs.settings import JobSettings
from tests.archive.models import tables_of
from tests.archive.returns import archive, restore
from tests.archive.runs import LONG_AGO, count, rows_of

COLUMNS = MetaData(naming_convention=NAMING_CONVENTION)
MARKS = {"is_deleted": True, "deleted_at": LONG_AGO}


class Article(SoftDeleteModel):
    """With columns that the database computes, one of them from the mark of its deletion."""

    __tablename__ = "articles"
    metadata = COLUMNS

    price: Mapped[int]
    doubled: Mapped[int] = mapped_column(Integer, Computed("price * 2", persisted=True))
    is_for_sale: Mapped[int | None] = mapped_column(
        Integer, Computed("CASE WHEN deleted_at IS NULL THEN 1 END", persisted=True)
    )
    number: Mapped[int] = mapped_column(Integer, Identity(always=True))


class Label(SoftDeleteModel):
    """With columns that came later and may not be NULL."""

    __tablename__ = "labels"
    metadata = COLUMNS

    note: Mapped[str] = mapped_column(server_default="it's \\ 100 %")
    rank: Mapped[int] = mapped_column(server_default="7")
    rate: Mapped[Decimal] = mapped_column(Numeric(10, 2), server_default="1.5")
    is_new: Mapped[bool] = mapped_column(server_default="1")
    words: Mapped[str] = mapped_column(server_default=text("'as it is'"))


class Sample(SoftDeleteMixin, Base):
    """With names that mean something else in a statement as text."""

    __tablename__ = "samples"
    metadata = COLUMNS

    id: Mapped[int] = mapped_column("no:%", primary_key=True, autoincrement=False)
    rate: Mapped[int] = mapped_column("rate:before %")


class Measure(SoftDeleteMixin, Base):
    """With such a name, but a plain key."""

    __tablename__ = "measures"
    metadata = COLUMNS

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    share: Mapped[int] = mapped_column("share %:run_id")


ARTICLES, LABELS = (cast("Table", model.__table__) for model in (Article, Label))
ODD_NAMES = [cast("Table", model.__table__) for model in (Sample, Measure)]
_, LABELS_ARCHIVE = map(archive_table, (ARTICLES, LABELS))
ODD_ARCHIVES = [archive_table(table) for table in ODD_NAMES]
CATALOG = Catalog.of(COLUMNS)


@pytest.fixture(autouse=True)
async def tables(manager: DatabaseManager) -> AsyncIterator[None]:
    async with tables_of(manager, COLUMNS):
        yield


async def put(table: Table, **values: Any) -> UUID:
    key = uuid7()
    async with get_async_session() as session:
        await session.execute(insert(table).values(id=key, **MARKS, **values))
    return key


@pytest.mark.parametrize("destination", ["tables", "files"])
async def test_what_the_database_computes_comes_back(
    destination: str, manager: DatabaseManager, job_settings: JobSettings
) -> None:
    numbers = {} if manager.engine.dialect.name == "postgresql" else {"number": 5}
    key = await put(ARTICLES, price=3, **numbers)
    before = (await rows_of(ARTICLES))[key]
    await archive(job_settings, catalog=CATALOG, destination=destination)
    report = await restore(job_settings, key, table="articles", catalog=CATALOG)
    assert (report.restored, report.refused) == ({"articles": 1}, ())
    row = (await rows_of(ARTICLES))[key]
    assert (row["price"], row["doubled"], row["is_for_sale"], row["number"]) == (3, 6, 1, before["number"])
    assert before["is_for_sale"] is None


async def test_columns_that_came_later_get_their_default(job_settings: JobSettings) -> None:
    key = await put(LABELS)
    before = (await rows_of(LABELS))[key]
    await archive(job_settings, catalog=CATALOG)
    later = ("note", "rank", "rate", "is_new", "words")
    async with get_async_session() as session:
        await session.execute(update(LABELS_ARCHIVE).values(dict.fromkeys(later)))
    report = await restore(job_settings, key, table="labels", catalog=CATALOG)
    assert (report.restored, report.refused) == ({"labels": 1}, ())
    row = (await rows_of(LABELS))[key]
    assert {name: row[name] for name in later} == {name: before[name] for name in later}


@pytest.mark.parametrize("destination", ["tables", "files"])
@pytest.mark.parametrize("table", ODD_NAMES, ids=str)
async def test_names_of_columns_are_only_names(table: Table, destination: str, job_settings: JobSettings) -> None:
    key, other = (column.name for column in table.columns if column.name not in MARKS)
    async with get_async_session() as session:
        await session.execute(insert(table), [{key: number, other: 7, **MARKS} for number in range(300)])
    report = await archive(job_settings, catalog=CATALOG, tables=(table.name,), destination=destination)
    assert (report.moved, report.left, await count(table)) == ({table.name: 300}, {}, 0)
    back = await restore(job_settings, 3, 5, table=table.name, catalog=CATALOG)
    assert (back.restored, back.refused, await count(table)) == ({table.name: 2}, (), 2)
