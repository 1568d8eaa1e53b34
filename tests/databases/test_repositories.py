"""What every repository does with single rows, the same on each engine."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from db.connection import DatabaseManager, get_async_session
from db.errors import (
    ForeignKeyError,
    InvalidInputError,
    NotFoundError,
    NotNullError,
    ValueTooLongError,
)
from db.mixins import acting_as
from db.models import Control, Task, TaskStatus
from db.repositories.base import BaseRepository
from db.repositories.task import TaskRepository
from db.repositories.user import UserRepository
from holdfast.ids import uuid7
from tests.databases.scratch import (
    ScratchBook,
    ScratchHTTPEntry,
    ScratchLoan,
    ScratchShelf,
    ScratchTicket,
    scratch_tables,
)
from tests.databases.statements import statements

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
USERS, TASKS = UserRepository(), TaskRepository()


class Shelves(BaseRepository[ScratchShelf]):
    model = ScratchShelf


class Books(BaseRepository[ScratchBook]):
    model = ScratchBook


class Loans(BaseRepository[ScratchLoan]):
    model = ScratchLoan


class Tickets(BaseRepository[ScratchTicket]):
    model = ScratchTicket


class Entries(BaseRepository[ScratchHTTPEntry]):
    model = ScratchHTTPEntry


@pytest.fixture
async def shelf(manager: DatabaseManager) -> AsyncIterator[UUID]:
    """The scratch tables, and a shelf in them."""
    async with scratch_tables(manager):
        async with get_async_session() as session:
            made = await Shelves().create(session, name="poetry")
        yield made.id


async def make_task(**values: object) -> Task:
    async with get_async_session() as session:
        owner = await USERS.upsert(session, by="username", username="ada")
        return await TASKS.create(session, **{"title": "t", "user_id": owner.id, **values})


async def test_a_created_row_has_its_defaults_and_is_the_sessions(manager: DatabaseManager) -> None:
    before = datetime.now(UTC)
    async with get_async_session() as session:
        with acting_as("ada"):
            owner = await USERS.create(session, username="ada", email="ada@example.org")
            task = await TASKS.create(session, title="t", user_id=owner.id, tags=["a"], metadata_json={"a": [1]})
        assert (task.status, task.description, task.created_by, task.updated_by) == (
            TaskStatus.PENDING,
            None,
            "ada",
            None,
        )
        assert isinstance(task.id, UUID)
        assert before <= task.created_at <= datetime.now(UTC)
        assert await session.get(Task, task.id) is task
        task.metadata_json["a"].append(2)  # type: ignore[index]
        task.title = "changed"
    async with get_async_session(read_only=True) as session:
        found = await TASKS.get(session, task.id)
        assert found is not None
        assert (found.title, found.metadata_json, found.tags) == ("changed", {"a": [1, 2]}, ["a"])


async def test_what_a_create_returns_is_what_the_table_holds(manager: DatabaseManager) -> None:
    """In the types that a read gives, whatever form the values had."""
    hour = timezone(timedelta(hours=1))
    async with get_async_session() as session:
        owner = await USERS.create(session, username="ada")
        task = await TASKS.create(
            session, title="t", user_id=str(owner.id), status="COMPLETED", completed_at=LONG_AGO.astimezone(hour)
        )
        assert (task.status, task.user_id, task.completed_at) == (TaskStatus.COMPLETED, owner.id, LONG_AGO)
        assert task.completed_at is not None
        assert task.completed_at.tzinfo is UTC


async def test_nothing_is_committed(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        await USERS.create(session, username="ada")
        await USERS.bulk_create(session, [{"username": "bob"}])
        await USERS.upsert(session, by="username", username="eve")
        assert await USERS.count(session) == 3
        await session.rollback()
    async with get_async_session(read_only=True) as session:
        assert await USERS.count(session) == 0


@pytest.mark.parametrize("repository", [Tickets, Entries])
async def test_keys_of_every_kind(
    shelf: UUID, repository: type[BaseRepository[ScratchTicket] | BaseRepository[ScratchHTTPEntry]]
) -> None:
    values = {Tickets: {"text": "t"}, Entries: {}}[repository]
    async with get_async_session() as session:
        made = await repository().create(session, **values)
        (key,) = session.identity_map.keys()
        async with get_async_session(read_only=True) as other:
            assert await repository().get(other, key[1][0]) is None  # not committed
        assert await repository().get(session, key[1][0]) is made
        await repository().hard_delete(session, key[1][0])
        assert await repository().get(session, key[1][0]) is None


def test_a_key_of_two_columns_is_refused() -> None:
    class Controls(BaseRepository[Control]):
        model = Control

    with pytest.raises(TypeError, match="Control has no primary key of one column"):
        _ = Controls()._shape


async def test_get_asks_once_and_loads_what_it_is_told(manager: DatabaseManager) -> None:
    task = await make_task()
    async with get_async_session(read_only=True) as session:
        with statements(manager) as sent:
            found = await TASKS.get(session, task.id, options=[selectinload(Task.user)])
        assert len(sent) == 2
        assert found is not None
        assert found.user.username == "ada"
        assert await TASKS.get(session, str(task.id)) is found
        assert await TASKS.get(session, uuid7()) is None


async def test_an_update_changes_what_it_names(manager: DatabaseManager) -> None:
    task = await make_task(updated_at=LONG_AGO)
    async with get_async_session() as session:
        known = await TASKS.get(session, task.id)
        assert known is not None
        known.description = "not flushed yet"
        with acting_as("eve"):
            changed = await TASKS.update(session, task.id, title="new", status="IN_PROGRESS")
        assert changed is known
        assert (changed.title, changed.status, changed.description, changed.updated_by) == (
            "new",
            TaskStatus.IN_PROGRESS,
            "not flushed yet",
            "eve",
        )
        assert changed.updated_at > LONG_AGO
        assert not session.dirty


@pytest.mark.parametrize("field", ["id", "is_deleted", "deleted_at"])
async def test_an_update_leaves_keys_and_marks_alone(manager: DatabaseManager, field: str) -> None:
    task = await make_task()
    async with get_async_session() as session:
        with pytest.raises(InvalidInputError, match=rf"tasks\.{field} is not written here"):
            await TASKS.update(session, task.id, **{field: None})
        with pytest.raises(InvalidInputError, match="nothing to change"):
            await TASKS.update(session, task.id)


async def marks_of(session: AsyncSession, key: UUID) -> tuple[bool, bool]:
    """Return whether the row is marked as deleted, and whether it says when."""
    task = await TASKS.get(session, key, include_deleted=True)
    assert task is not None
    return task.is_deleted, task.deleted_at is not None


async def test_a_deleted_row_is_out_of_sight_until_it_is_restored(manager: DatabaseManager) -> None:
    task = await make_task()
    async with get_async_session() as session:
        known = await TASKS.get(session, task.id)
        assert known is not None
        await TASKS.delete(session, task.id)
        assert await marks_of(session, task.id) == (True, True)
        assert await TASKS.get(session, task.id) is None
        assert await TASKS.get(session, task.id, include_deleted=True) is known
        assert (await TASKS.count(session), await TASKS.count(session, include_deleted=True)) == (0, 1)
        for refused in (TASKS.delete(session, task.id), TASKS.update(session, task.id, title="x")):
            with pytest.raises(NotFoundError, match="tasks: there is no row"):
                await refused
        assert await TASKS.restore(session, task.id) is known
        assert await marks_of(session, task.id) == (False, False)
        assert await TASKS.restore(session, task.id) is known  # a second time it does nothing
        assert await TASKS.count(session) == 1


async def test_a_hard_deletion_is_for_good(manager: DatabaseManager) -> None:
    task = await make_task()
    async with get_async_session() as session:
        await TASKS.delete(session, task.id)
        known = await TASKS.get(session, task.id, include_deleted=True)
        await TASKS.hard_delete(session, task.id)
        assert known not in session
        assert await TASKS.count(session, include_deleted=True) == 0
        for refused in (TASKS.hard_delete(session, task.id), TASKS.restore(session, task.id)):
            with pytest.raises(NotFoundError):
                await refused


async def test_a_model_without_soft_deletion(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        user = await USERS.create(session, username="ada")
        with pytest.raises(InvalidInputError, match="users has no soft deletion"):
            await USERS.restore(session, user.id)
        await USERS.delete(session, user.id)
        assert await USERS.count(session, include_deleted=True) == 0


async def test_a_missing_parent_and_a_missing_value(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        with pytest.raises(ForeignKeyError):
            await TASKS.create(session, title="t", user_id=uuid7())
        await session.rollback()
        with pytest.raises(NotNullError, match=r"users\.username: must have a value"):
            await USERS.create(session, full_name="Ada")


async def test_a_parent_that_others_point_to(manager: DatabaseManager, shelf: UUID) -> None:
    if manager.engine.dialect.name == "sqlite":
        statement = "CREATE TABLE notes (shelf_id CHAR(32) REFERENCES scratch_shelf (id))"
    else:
        uuid = "UUID"
        statement = f"CREATE TABLE notes (shelf_id {uuid}, FOREIGN KEY (shelf_id) REFERENCES scratch_shelf (id))"
    async with manager.engine.begin() as connection:
        await connection.execute(text(statement))
        await connection.execute(text("INSERT INTO notes SELECT id FROM scratch_shelf"))
    try:
        async with get_async_session() as session:
            with pytest.raises(ForeignKeyError, match="others still point to it"):
                await Shelves().hard_delete(session, shelf)
            await session.rollback()
            assert await Shelves().get(session, shelf) is not None
    finally:
        async with manager.engine.begin() as connection:
            await connection.execute(text("DROP TABLE notes"))


UNFIT: list[tuple[dict[str, object], type[Exception], str]] = [
    ({"nmae": "x"}, InvalidInputError, "value for 'nmae': ScratchShelf has no such field; did you mean 'name'?"),
    ({"nmae": None}, InvalidInputError, "value for 'nmae': ScratchShelf has no such field; did you mean 'name'?"),
    ({"books": []}, InvalidInputError, "value for 'books': ScratchShelf has no such field; its fields are"),
    ({"name": "x" * 51}, ValueTooLongError, "scratch_shelf.name takes at most 50 characters, not 51: shorten it"),
    ({"name": 5}, InvalidInputError, "scratch_shelf.name takes text, not int"),
    ({"name": "a\x00b"}, InvalidInputError, "scratch_shelf.name the text holds a NUL at position 1"),
    (
        {"name": "\ud800"},
        InvalidInputError,
        "scratch_shelf.name the text holds half a surrogate pair at position 0",
    ),
    ({"opened_at": datetime(2020, 1, 1)}, InvalidInputError, "takes a datetime with a time zone"),  # noqa: DTZ001
    ({"opened_at": "2020-01-01"}, InvalidInputError, "scratch_shelf.opened_at takes a datetime, not str"),
    (
        {"opened_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=1)))},
        InvalidInputError,
        "scratch_shelf.opened_at takes the years 1000 to 9999 (UTC)",
    ),
    ({"id": "no uuid"}, InvalidInputError, "scratch_shelf.id takes a UUID or its text"),
]


async def test_what_does_not_fit_is_refused_before_it_is_sent(manager: DatabaseManager, shelf: UUID) -> None:
    async with get_async_session() as session:
        with statements(manager) as sent:
            for unfit, kind, message in UNFIT:
                values = {"name": "x", **unfit}
                for attempt in (
                    Shelves().create(session, **values),
                    Shelves().bulk_create(session, [values]),
                    Shelves().upsert(session, by="name", **values),
                ):
                    with pytest.raises(kind) as caught:
                        await attempt
                    assert message in str(caught.value)
        assert sent == []


async def test_a_number_that_the_column_cannot_hold(shelf: UUID) -> None:
    async with get_async_session() as session:
        for number in (2**31, -(2**31) - 1, 2**63, 2**200, True):
            with pytest.raises(InvalidInputError, match=r"scratch_http_entry\.number takes"):
                await Entries().create(session, number=number)
        for number in (2**31 - 1, -(2**31)):
            assert (await Entries().create(session, number=number)).number == number
