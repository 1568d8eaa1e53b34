"""Many rows at once, the same on each engine."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import select

from db.connection import DatabaseManager, get_async_session
from db.errors import DuplicateKeyError, ForeignKeyError, InvalidInputError, NotFoundError
from db.mixins import acting_as
from db.models import Task, TaskStatus
from db.repositories.bulk import ROWS_AT_ONCE
from db.repositories.task import TaskRepository
from db.repositories.user import UserRepository
from holdfast.ids import uuid7
from tests.databases.statements import statements

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TASKS, USERS = TaskRepository(), UserRepository()


@pytest.fixture
async def owner(manager: DatabaseManager) -> UUID:
    """A user without tasks."""
    async with get_async_session() as session:
        return (await USERS.create(session, username="ada")).id


async def test_rows_alike_are_one_insert(manager: DatabaseManager, owner: UUID) -> None:
    rows: list[dict[str, object]] = [{"title": f"t{number}", "user_id": owner} for number in range(250)]
    async with get_async_session() as session:
        with statements(manager) as sent, acting_as("ada"):
            assert await TASKS.bulk_create(session, rows) == 250
        assert len([one for one in sent if one.startswith("INSERT INTO tasks")]) == 1
        with statements(manager) as sent:
            odd = [{"title": "x", "user_id": owner, "status": "COMPLETED"}, *rows[:2], {"user_id": owner, "title": "y"}]
            assert await TASKS.bulk_create(session, odd) == 4
        assert len([one for one in sent if one.startswith("INSERT INTO tasks")]) == 3  # one for each order of fields
        assert rows[0] == {"title": "t0", "user_id": owner}  # what is handed over is left alone
        assert await TASKS.count(session, {"created_by": "ada"}) == 250
        assert await TASKS.count(session, {"status": TaskStatus.COMPLETED}) == 1
        assert await TASKS.bulk_create(session, []) == 0


async def test_all_rows_or_none(manager: DatabaseManager, owner: UUID) -> None:
    row = {"title": "t", "user_id": owner, "external_key": "k"}
    async with get_async_session() as session:
        for rows, error in (
            ([{**row, "external_key": "a"}, row, row], DuplicateKeyError),
            ([row, {**row, "external_key": "a", "user_id": uuid7()}], ForeignKeyError),
            ([row, {**row, "title": 5}], InvalidInputError),
        ):
            with pytest.raises(error):
                await TASKS.bulk_create(session, rows)
            assert await TASKS.count(session) == 0


@pytest.mark.parametrize("count", [10_000, 33_000], ids=["10,000", "more than a statement has parameters"])
async def test_any_number_of_rows_can_be_deleted(manager: DatabaseManager, owner: UUID, count: int) -> None:
    present = [uuid7() for _ in range(20)]
    keys = [*present[:10], *(uuid7() for _ in range(count - 20)), *present[10:]]
    async with get_async_session() as session:
        await TASKS.bulk_create(session, [{"id": key, "title": "t", "user_id": owner} for key in present])
        known = await TASKS.get(session, present[-1])
        assert known is not None
        with statements(manager) as sent:
            assert await TASKS.bulk_delete(session, keys) == 20
        assert len([one for one in sent if one.startswith("UPDATE tasks")]) == -(-count // ROWS_AT_ONCE)
        assert known.is_deleted
        assert await TASKS.count(session) == 0
        assert await TASKS.bulk_delete(session, keys[:5]) == 0  # they are deleted already
        assert await TASKS.bulk_delete(session, []) == 0


async def test_rows_of_a_model_without_soft_deletion_are_gone(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        users = [await USERS.create(session, username=name) for name in ("ada", "bob", "eve")]
        assert await USERS.bulk_delete(session, [users[0].id, users[1].id, uuid7()]) == 2
        assert [user in session for user in users] == [False, False, True]
        assert await USERS.count(session, include_deleted=True) == 1


async def test_rows_are_changed_each_in_its_way(manager: DatabaseManager, owner: UUID) -> None:
    keys = [uuid7() for _ in range(6)]
    async with get_async_session() as session:
        rows = [{"id": key, "title": "old", "user_id": owner, "updated_at": LONG_AGO} for key in keys]
        await TASKS.bulk_create(session, rows)
        known = await TASKS.get(session, keys[0])
        assert known is not None
        changes: list[dict[str, object]] = [{"id": key, "title": f"new {place}"} for place, key in enumerate(keys[:4])]
        changes += [{"status": "COMPLETED", "title": "both", "id": str(keys[4])}, {"id": keys[5]}]
        with acting_as("eve"):
            assert await TASKS.bulk_update(session, changes) == 6
        assert (known.title, known.updated_by) == ("new 0", "eve")
        assert known.updated_at > LONG_AGO
    async with get_async_session(read_only=True) as session:
        found = (await session.execute(select(Task).order_by(Task.id))).scalars().all()
        assert [task.title for task in found] == ["new 0", "new 1", "new 2", "new 3", "both", "old"]
        assert found[4].status is TaskStatus.COMPLETED
        assert [task.updated_at > LONG_AGO for task in found] == [True] * 5 + [False]


async def test_a_change_of_what_is_not_there_changes_nothing(manager: DatabaseManager, owner: UUID) -> None:
    async with get_async_session() as session:
        there, deleted = [await TASKS.create(session, title="old", user_id=owner) for _ in range(2)]
        await TASKS.delete(session, deleted.id)
        first = {"id": there.id, "title": "new"}
        for second, error, message in (
            ({"id": uuid7(), "title": "new"}, NotFoundError, "tasks: there is no row"),
            ({"id": deleted.id, "title": "new"}, NotFoundError, "or it is deleted"),
            ({"title": "new"}, InvalidInputError, "a change names its row by id"),
            ({"id": there.id, "nmae": 1}, InvalidInputError, "Task has no such field"),
            ({"id": there.id, "is_deleted": True}, InvalidInputError, "is not written here"),
            ({"id": there.id, "user_id": uuid7()}, ForeignKeyError, "points to one that is not there"),
        ):
            with pytest.raises(error, match=message):
                await TASKS.bulk_update(session, [first, second])
            await session.refresh(there)
            assert there.title == "old"
