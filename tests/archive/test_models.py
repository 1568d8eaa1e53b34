"""What mapped models may look like: inheritance over several tables, indexes without a column, owners elsewhere."""

from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy import Dialect, ForeignKey, Index, MetaData, Table, insert, text
from sqlalchemy.orm import Mapped, mapped_column

from db.archive_tables import archive_table
from db.archives.catalog import Catalog
from db.base import BaseModel, SoftDeleteModel
from db.connection import DatabaseManager, get_async_session
from db.types import NAMING_CONVENTION
from holdfast.ids import uuid7
from jobs.settings import JobSettings
from tests.archive.models import tables_of
from tests.archive.returns import archive, erase, restore
from tests.archive.runs import LONG_AGO, count, rows_of

MODELS = MetaData(naming_convention=NAMING_CONVENTION)
MARKS = {"is_deleted": True, "deleted_at": LONG_AGO}


def _knows_expressions(*_: object, dialect: Dialect, **__: object) -> bool:
    return dialect.name in {"postgresql", "sqlite"}


class Person(SoftDeleteModel):
    """Holds the mark of those that are more than a person."""

    __tablename__ = "people"
    metadata = MODELS
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012

    kind: Mapped[str]


class Employee(Person):
    """A person with columns in a table of their own, which the database lets go with it."""

    __tablename__ = "employees"
    __mapper_args__ = {"polymorphic_identity": "employee"}  # noqa: RUF012

    id: Mapped[UUID] = mapped_column(ForeignKey(Person.id, ondelete="CASCADE"), primary_key=True)
    salary: Mapped[int]


class Guest(Person):
    """Another one, whose columns keep its person as far as the database knows."""

    __tablename__ = "guests"
    __mapper_args__ = {"polymorphic_identity": "guest"}  # noqa: RUF012

    id: Mapped[UUID] = mapped_column(ForeignKey(Person.id), primary_key=True)
    room: Mapped[int]


class Post(SoftDeleteModel):
    """With an index that names no column."""

    __tablename__ = "posts"
    metadata = MODELS

    title: Mapped[str]

    __table_args__ = (Index("ix_posts_lower", text("lower(title)")).ddl_if(callable_=_knows_expressions),)


class Author(BaseModel):
    """Never archived."""

    __tablename__ = "authors"
    metadata = MODELS


class Remark(BaseModel):
    """Belongs to its author, and keeps the post that it is about; it can go nowhere, and has no archive."""

    __tablename__ = "remarks"
    metadata = MODELS

    author_id: Mapped[UUID] = mapped_column(ForeignKey(Author.id, ondelete="CASCADE"))
    post_id: Mapped[UUID] = mapped_column(ForeignKey(Post.id))


PEOPLE, EMPLOYEES, GUESTS, POSTS, AUTHORS, REMARKS = (
    cast("Table", model.__table__) for model in (Person, Employee, Guest, Post, Author, Remark)
)
PEOPLE_ARCHIVE, EMPLOYEES_ARCHIVE, GUESTS_ARCHIVE, POSTS_ARCHIVE = map(
    archive_table, (PEOPLE, EMPLOYEES, GUESTS, POSTS)
)
CATALOG = Catalog.of(MODELS)


@pytest.fixture(autouse=True)
async def tables(manager: DatabaseManager) -> AsyncIterator[None]:
    async with tables_of(manager, MODELS):
        yield


async def put(table: Table, **values: Any) -> UUID:
    key = values.pop("id", None) or uuid7()
    async with get_async_session() as session:
        await session.execute(insert(table).values(id=key, **values))
    return key


async def people() -> tuple[UUID, UUID]:
    employee, guest = await put(PEOPLE, kind="employee", **MARKS), await put(PEOPLE, kind="guest", **MARKS)
    await put(EMPLOYEES, id=employee, salary=1)
    await put(GUESTS, id=guest, room=2)
    return employee, guest


async def counts(*tables: Table) -> list[int]:
    return [await count(table) for table in tables]


def test_the_table_of_a_subclass_is_no_soft_deleted_one_but_belongs_to_its_parents() -> None:
    assert list(CATALOG.soft_deleted) == ["people", "posts"]
    assert [(one.child.name, one.owns) for one in CATALOG.references_to(PEOPLE)] == [
        ("employees", True),
        ("guests", True),
    ]


@pytest.mark.parametrize("destination", ["tables", "files"])
async def test_what_a_subclass_adds_goes_and_comes_back_with_its_row(
    destination: str, job_settings: JobSettings
) -> None:
    keys = await people()
    before = [await rows_of(table) for table in (EMPLOYEES, GUESTS)]
    report = await archive(job_settings, catalog=CATALOG, destination=destination)
    assert report.moved == {"people": 2, "posts": 0, "employees": 1, "guests": 1}
    assert await counts(PEOPLE, EMPLOYEES, GUESTS) == [0, 0, 0]

    back = await restore(job_settings, *keys, table="people", catalog=CATALOG)

    assert (back.restored, back.refused) == ({"people": 2, "employees": 1, "guests": 1}, ())
    assert [await rows_of(table) for table in (EMPLOYEES, GUESTS)] == before


@pytest.mark.parametrize("destination", ["tables", "files", None])
async def test_what_a_subclass_adds_is_erased_with_its_row(destination: str | None, job_settings: JobSettings) -> None:
    keys = await people()
    if destination is not None:
        await archive(job_settings, catalog=CATALOG, destination=destination)
    report = await erase(job_settings, *keys, table="people", catalog=CATALOG)
    assert (report.erased, report.refused) == ({"people": 2, "employees": 1, "guests": 1}, ())
    everywhere = (PEOPLE, EMPLOYEES, GUESTS, PEOPLE_ARCHIVE, EMPLOYEES_ARCHIVE, GUESTS_ARCHIVE)
    assert await counts(*everywhere) == [0] * 6
    assert list(job_settings.archives_dir.glob("*/*.zst")) == []


async def test_what_belongs_to_a_table_that_never_leaves_needs_no_archive(job_settings: JobSettings) -> None:
    await put(POSTS, title="gone", **MARKS)
    cited, author = await put(POSTS, title="stays", **MARKS), await put(AUTHORS)
    remark = await put(REMARKS, author_id=author, post_id=cited)
    report = await archive(job_settings, catalog=CATALOG)
    assert (report.moved, report.kept) == ({"people": 0, "posts": 1}, {"posts": 1})
    assert [(row.key, row.by_key) for row in report.kept_rows] == [(str(cited), str(remark))]
    assert await counts(POSTS, POSTS_ARCHIVE, REMARKS) == [1, 1, 1]
