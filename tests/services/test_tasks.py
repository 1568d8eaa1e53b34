"""How far tasks may come, and whose they may be."""

import asyncio
from datetime import UTC, datetime
from itertools import product
from uuid import UUID

import pytest

from db.connection import DatabaseManager, get_async_session
from db.errors import DuplicateKeyError, InvalidInputError, NotFoundError
from db.models import TaskStatus
from db.repositories.task import TaskRepository
from db.repositories.user import UserRepository
from db.schemas import TaskCreate, TaskRead
from holdfast.ids import uuid7
from services.errors import ServiceError, StatusChangeRefused, UserDeactivated
from services.tasks import NEXT_STATUSES, TaskService

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
SERVICE = TaskService()


@pytest.fixture
async def owner(manager: DatabaseManager) -> UUID:
    """A user."""
    async with get_async_session() as session:
        return (await UserRepository().create(session, username="ada")).id


async def make(owner: UUID, **values: object) -> TaskRead:
    async with get_async_session() as session:
        return await SERVICE.create(session, TaskCreate.model_validate({"title": "t", "user_id": owner, **values}))


async def change(task: TaskRead, status: TaskStatus) -> TaskRead:
    async with get_async_session() as session:
        return await SERVICE.change_status(session, task.id, status)


def test_the_table_names_every_status() -> None:
    assert set(NEXT_STATUSES) == set(TaskStatus)
    assert all(status not in following for status, following in NEXT_STATUSES.items())


async def test_only_the_tables_changes_are_allowed(owner: UUID) -> None:
    for before, after in product(TaskStatus, TaskStatus):
        task = await make(owner, status=before)
        if after in NEXT_STATUSES[before] | {before}:
            changed = await change(task, after)
            assert changed.status is after
            assert (changed.completed_at is not None) is (after is TaskStatus.COMPLETED)
        else:
            with pytest.raises(StatusChangeRefused, match=f"is {before} and cannot become {after}, only") as caught:
                await change(task, after)
            assert isinstance(caught.value, ServiceError)


async def test_a_task_is_completed_once_and_reopened(owner: UUID) -> None:
    task = await make(owner)
    async with get_async_session() as session:
        done = await SERVICE.mark_completed(session, task.id)
        assert done.completed_at is not None
        assert (await SERVICE.mark_completed(session, task.id)).completed_at == done.completed_at
        again = await SERVICE.reopen(session, task.id)
        assert (again.status, again.completed_at) == (TaskStatus.PENDING, None)


async def test_when_a_new_task_was_completed(owner: UUID) -> None:
    assert (await make(owner, status="COMPLETED", completed_at=LONG_AGO)).completed_at == LONG_AGO
    assert (await make(owner, status="COMPLETED")).completed_at is not None
    with pytest.raises(InvalidInputError, match="completed_at of a task that is PENDING: leave it out"):
        await make(owner, completed_at=LONG_AGO)


async def test_tasks_are_given_to_active_users_only(owner: UUID) -> None:
    task = await make(owner)
    async with get_async_session() as session:
        bob = await UserRepository().create(session, username="bob")
        assert (await SERVICE.assign(session, task.id, bob.id)).user_id == bob.id
        await UserRepository().update(session, owner, is_active=False)
        with pytest.raises(UserDeactivated, match="user ada is deactivated and is given no tasks"):
            await SERVICE.assign(session, task.id, owner)
        for unknown in (SERVICE.assign(session, task.id, uuid7()), SERVICE.assign(session, uuid7(), bob.id)):
            with pytest.raises(NotFoundError):
                await unknown
    for user_id, refused in ((owner, UserDeactivated), (uuid7(), NotFoundError)):
        with pytest.raises(refused):
            await make(user_id)


async def test_deleted_and_unknown_tasks(owner: UUID) -> None:
    task = await make(owner, external_key="k")
    async with get_async_session() as session:
        await TaskRepository().delete(session, task.id)
        for refused in (
            SERVICE.mark_completed(session, task.id),
            SERVICE.reopen(session, uuid7()),
            SERVICE.assign(session, task.id, owner),
        ):
            with pytest.raises(NotFoundError, match="tasks: there is no row"):
                await refused
    with pytest.raises(DuplicateKeyError, match="by a soft-deleted row") as caught:
        await make(owner, external_key="k")
    assert caught.value.deleted_id == task.id


async def test_of_two_changes_at_once_the_second_sees_the_first(owner: UUID) -> None:
    for _ in range(5):
        task = await make(owner)
        answers = await asyncio.gather(
            change(task, TaskStatus.CANCELLED), change(task, TaskStatus.COMPLETED), return_exceptions=True
        )
        (refused,) = [answer for answer in answers if not isinstance(answer, TaskRead)]
        assert isinstance(refused, StatusChangeRefused)
