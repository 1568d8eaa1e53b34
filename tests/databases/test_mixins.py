"""The mixins and bases: keys, times, soft deletion, who did it, names of tables."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import exists, func, insert, inspect, select, text, update
from sqlalchemy.orm import aliased, joinedload, selectinload

from db.connection import DatabaseManager, get_async_session
from db.fields import FieldError, translatable_fields
from db.mixins import acting_as
from tests.databases.scratch import (
    SCRATCH,
    ScratchBook,
    ScratchHTTPEntry,
    ScratchLoan,
    ScratchShelf,
    ScratchTicket,
    scratch_tables,
    values_of,
)

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
EVERYTHING = {"include_deleted": True}


@pytest.fixture(autouse=True)
async def tables(manager: DatabaseManager) -> AsyncIterator[None]:
    async with scratch_tables(manager):
        yield


async def shelve(*titles: str, deleted: tuple[str, ...] = ()) -> UUID:
    """Make a shelf with these books; returns the shelf's id."""
    async with get_async_session() as session:
        shelf = ScratchShelf(name="shelf")
        shelf.books = [ScratchBook(title=title) for title in titles]
        session.add(shelf)
        await session.flush()
        for book in shelf.books:
            if book.title in deleted:
                await book.soft_delete(session)
        return shelf.id


def test_tables_are_named_after_their_classes() -> None:
    names = {model.__tablename__ for model in (ScratchShelf, ScratchHTTPEntry, ScratchTicket)}
    assert names == {"scratch_shelf", "scratch_http_entry", "scratch_ticket"}


async def test_keys_are_made_in_python_and_sort_by_time(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        tickets = [ScratchTicket(text=str(number)) for number in range(20)]
        for ticket in tickets:
            session.add(ticket)
            await session.flush()
        entry = ScratchHTTPEntry()
        session.add(entry)
        await session.flush()
        assert (entry.number, entry.uuid.version) == (1, 7)
        assert {UUID(ticket.id).version for ticket in tickets} == {7}
        found = (await session.execute(select(ScratchTicket.text).order_by(ScratchTicket.id))).scalars().all()
    assert found == [str(number) for number in range(20)]


async def test_times_are_kept_by_the_orm_in_bulk_by_core_and_where_raw_sql_leaves_them_out(
    manager: DatabaseManager,
) -> None:
    await shelve("orm", "bulk", "core")
    books = SCRATCH.tables["scratch_book"]
    async with get_async_session() as session:
        await session.execute(update(books).values(updated_at=LONG_AGO, created_at=LONG_AGO))
    before = datetime.now(UTC)
    async with get_async_session() as session:
        book = (await session.execute(select(ScratchBook).where(ScratchBook.title == "orm"))).scalar_one()
        book.blurb = "new"
        await session.flush()
        await session.execute(update(ScratchBook).where(ScratchBook.title == "bulk").values(blurb="new"))
        await session.execute(update(books).where(books.c.title == "core").values(blurb="new"))
        await session.execute(text("INSERT INTO scratch_shelf (id, name) VALUES (:id, 'raw')"), {"id": "0" * 32})
    async with get_async_session(read_only=True) as session:
        for book in (await session.execute(select(ScratchBook))).scalars():
            assert before <= book.updated_at <= datetime.now(UTC), book.title
            assert book.created_at == LONG_AGO
        raw = (await session.execute(select(ScratchShelf).where(ScratchShelf.name == "raw"))).scalar_one()
    assert before - timedelta(seconds=1) <= raw.created_at <= datetime.now(UTC)


async def test_soft_deleted_rows_are_left_out_of_every_select(manager: DatabaseManager) -> None:
    await shelve("kept", "gone", deleted=("gone",))
    other = aliased(ScratchBook)
    shelves = select(func.count()).select_from(ScratchShelf)
    async with get_async_session(read_only=True) as session:
        queries: dict[str, Any] = {
            "entities": select(ScratchBook.title),
            "alias": select(other.title),
            "subquery": select(select(ScratchBook.title).subquery().c.title),
            "join": select(ScratchBook.title).join(ScratchShelf.books),
            "outer": select(other.title).select_from(ScratchShelf).outerjoin(ScratchShelf.books.of_type(other)),
            "cte": select(select(ScratchBook.title).cte().c.title),
            "union": select(ScratchBook.title).union_all(select(ScratchBook.title).where(ScratchBook.title == "gone")),
        }
        for name, query in queries.items():
            assert (await session.execute(query)).scalars().all() == ["kept"], name
            all_rows = (await session.execute(query, execution_options=EVERYTHING)).scalars().all()
            assert {"kept", "gone"} == set(all_rows), name
        gone = ScratchBook.title == "gone"
        assert (await session.execute(shelves.where(ScratchShelf.books.any(gone)))).scalar_one() == 0
        assert (await session.execute(shelves.where(exists().where(gone)))).scalar_one() == 0
        assert (await session.execute(select(func.count()).select_from(ScratchBook))).scalar_one() == 1
        assert len((await session.execute(select(ScratchBook.__table__))).all()) == 2


@pytest.mark.parametrize("load", [selectinload, joinedload])
async def test_soft_deleted_rows_are_left_out_of_relationships(manager: DatabaseManager, load: Any) -> None:
    shelf_id = await shelve("kept", "gone", deleted=("gone",))
    query = select(ScratchShelf).options(load(ScratchShelf.books))
    for options, titles in (({}, ["kept"]), (EVERYTHING, ["gone", "kept"])):
        async with get_async_session() as session:
            shelf = (await session.execute(query, execution_options=options)).unique().scalar_one()
            assert values_of(shelf.books, "title") == titles
    async with get_async_session() as session:
        shelf = await session.get_one(ScratchShelf, shelf_id)
        await session.refresh(shelf, ["books"])  # a lazy load
        assert values_of(shelf.books, "title") == ["kept"]
        made = ScratchShelf(name="new")
        session.add(made)
        await session.flush()
        session.add(ScratchBook(title="late", shelf_id=made.id, is_deleted=True))
        await session.flush()
        await session.refresh(made, ["books"])  # of an object that no select has loaded
        assert made.books == []
        book = shelf.books[0]
        session.add_all([ScratchLoan(book_id=book.id), ScratchLoan(book_id=book.id, is_deleted=True)])
        await session.flush()
        await session.refresh(book)  # a column load, with an eager one behind it
        await session.refresh(book, ["loans"])
        assert [loan.is_deleted for loan in book.loans] == [False]


async def test_a_deleted_parent_is_none(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        book = ScratchBook(title="gone", loans=[ScratchLoan()])
        session.add(book)
        await session.flush()
        await book.soft_delete(session)
    async with get_async_session() as session:
        loan = (await session.execute(select(ScratchLoan).options(selectinload(ScratchLoan.book)))).scalar_one()
        assert loan.book is None
        assert (await session.execute(select(ScratchLoan).join(ScratchLoan.book))).scalars().all() == []


async def test_delete_and_restore(manager: DatabaseManager) -> None:
    await shelve("book")
    async with get_async_session() as session:
        book = (await session.execute(select(ScratchBook))).scalar_one()
        await book.soft_delete(session)
        first = book.deleted_at
        await book.soft_delete(session)
        assert book.is_deleted
        assert book.deleted_at == first is not None
        await session.refresh(book)  # a deleted object that is there can be read again
    async with get_async_session() as session:
        found = await session.execute(select(ScratchBook), execution_options=EVERYTHING)
        book = found.scalar_one()
        assert (book.is_deleted, book.deleted_at) == (True, first)
        await book.restore(session)
    async with get_async_session(read_only=True) as session:
        book = (await session.execute(select(ScratchBook))).scalar_one()
        assert (book.is_deleted, book.deleted_at) == (False, None)


async def test_who_made_and_changed_a_row(manager: DatabaseManager) -> None:
    with acting_as("ada"):
        await shelve("one")
    async with get_async_session() as session:
        book = (await session.execute(select(ScratchBook))).scalar_one()
        assert (book.created_by, book.updated_by) == ("ada", None)
        with acting_as("bob"):
            book.blurb = "x"
            await session.flush()
        assert (book.created_by, book.updated_by) == ("ada", "bob")
        with acting_as("eve"):
            await session.execute(update(ScratchBook).values(blurb="y"))
            await session.execute(insert(ScratchBook).values(title="two"))
        await session.refresh(book)
        assert str(book.updated_by) == "eve"
        two = (await session.execute(select(ScratchBook).where(ScratchBook.title == "two"))).scalar_one()
        assert two.created_by == "eve"
        await session.execute(update(ScratchBook).values(blurb="z"))  # nobody that is known
        await session.refresh(book)
    assert (book.created_by, book.updated_by) == ("ada", None)


async def test_dictionaries_and_representations_query_nothing(manager: DatabaseManager) -> None:
    await shelve("one")
    async with get_async_session() as session:
        shelf = (await session.execute(select(ScratchShelf))).scalar_one()
        shelf.secret = "s"
        shown = shelf.to_dict(exclude=["updated_at"])
        assert shown == {
            "id": str(shelf.id),
            "name": "shelf",
            "opened_at": None,
            "created_at": shelf.created_at.isoformat(),
        }
        assert shelf.to_dict(include=["secret"])["secret"] == "s"
        key = shelf.id
        session.expire(shelf)
        assert shelf.to_dict() == {}
        assert repr(shelf) == "<ScratchShelf >"
        await session.refresh(shelf, ["id"])
        assert repr(shelf) == f"<ScratchShelf id={key!r}>"


def test_update_from_dict_refuses_unknown_and_protected_fields_and_then_changes_nothing() -> None:
    book = ScratchBook(title="old")
    refused = {
        "titel": "ScratchBook.titel='x' is no field of ScratchBook: did you mean 'title'?",
        "id": "ScratchBook.id='x' is protected: leave it out",
        "created_at": "ScratchBook.created_at='x' is protected: leave it out",
        "is_deleted": "ScratchBook.is_deleted='x' is protected: leave it out",
        "created_by": "ScratchBook.created_by='x' is protected: leave it out",
        "shelf": "ScratchBook.shelf='x' is no field of ScratchBook: did you mean 'shelf_id'?",
        "__class__": "ScratchBook.__class__='x' is no field of ScratchBook: its fields are",
    }
    for name, message in refused.items():
        with pytest.raises(FieldError) as caught:
            book.update_from_dict({"title": "new", name: "x"})
        assert str(caught.value).startswith(message)
        assert (caught.value.model, caught.value.field, caught.value.value) == ("ScratchBook", name, "x")
        assert book.title == "old"
    book.update_from_dict({"title": "new", "metadata_json": {"a": 1}})
    assert (book.title, book.metadata_json) == ("new", {"a": 1})


def test_translatable_fields_are_listed() -> None:
    assert translatable_fields(ScratchBook) == ("title", "blurb")
    assert translatable_fields(ScratchTicket) == ()


def test_a_new_object_shows_what_it_has() -> None:
    assert ScratchBook(title="t").to_dict() == {"title": "t"}
    assert inspect(ScratchBook(title="t")).transient
