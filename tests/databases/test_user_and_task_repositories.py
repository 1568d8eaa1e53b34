"""The methods that users and tasks have besides, and how many statements they take."""

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import DatabaseManager, get_async_session
from db.models import TaskStatus, User
from db.repositories.task import TaskRepository
from db.repositories.user import UserRepository
from holdfast.ids import uuid7
from tests.databases.statements import statements

TASKS, USERS = TaskRepository(), UserRepository()


async def make_users(**counts: int) -> dict[str, User]:
    """Make users with so many tasks, in turn of each status, and a deleted one; returns the users by name."""
    users = {}
    async with get_async_session() as session:
        for name, count in counts.items():
            users[name] = await USERS.create(session, username=name)
            states = [list(TaskStatus)[number % 4] for number in range(count)]
            rows = [{"title": f"{name} 100%", "user_id": users[name].id, "status": state} for state in states]
            await TASKS.bulk_create(session, rows)
            deleted = await TASKS.create(session, title=f"{name} 100%", user_id=users[name].id)
            await TASKS.delete(session, deleted.id)
    return users


async def test_users_by_name(manager: DatabaseManager) -> None:
    users = await make_users(ada=0)
    async with get_async_session(read_only=True) as session:
        found = await USERS.get_by_username(session, "ada")
        assert found is not None
        assert found.id == users["ada"].id
        for name in ("Ada", "ada ", "a%", "' OR 1=1 --"):
            assert await USERS.get_by_username(session, name) is None
            assert not await USERS.username_exists(session, name)
        assert await USERS.username_exists(session, "ada")


async def test_users_with_tasks(manager: DatabaseManager) -> None:
    users = await make_users(ada=5, bob=0)
    async with get_async_session(read_only=True) as session:
        ada = await USERS.get_user_with_tasks(session, users["ada"].id)
        bob = await USERS.get_user_with_tasks(session, users["bob"].id)
        assert ada is not None
        assert bob is not None
        assert (len(ada.tasks), len(bob.tasks)) == (5, 0)
        assert await USERS.get_user_with_tasks(session, uuid7()) is None


async def test_users_with_the_number_of_their_tasks(manager: DatabaseManager) -> None:
    await make_users(eve=3, ada=5, bob=0)
    async with get_async_session(read_only=True) as session:
        found = await USERS.get_users_with_task_counts(session)
        assert [(one.user.username, one.task_count) for one in found] == [("ada", 5), ("bob", 0), ("eve", 3)]
        (last,) = await USERS.get_users_with_task_counts(session, limit=1, offset=2)
        assert last.user.username == "eve"


async def test_tasks_by_user_and_status(manager: DatabaseManager) -> None:
    users = await make_users(ada=6, bob=1)
    ada = users["ada"].id
    async with get_async_session(read_only=True) as session:
        assert len(await TASKS.get_by_user(session, ada)) == 6
        assert len(await TASKS.get_by_user(session, ada, include_deleted=True)) == 7
        assert len(await TASKS.get_by_user(session, uuid7())) == 0
        assert len(await TASKS.get_by_status(session, TaskStatus.CANCELLED)) == 1
        for method, status, count in (
            (TASKS.get_pending_tasks, TaskStatus.PENDING, 3),
            (TASKS.get_in_progress_tasks, TaskStatus.IN_PROGRESS, 2),
            (TASKS.get_completed_tasks, TaskStatus.COMPLETED, 1),
        ):
            found = await method(session, order_by="-created_at")
            assert [task.status for task in found] == [status] * count
        assert len(await TASKS.get_user_tasks_by_status(session, ada, TaskStatus.PENDING, limit=1)) == 1
        assert len(await TASKS.get_user_tasks_by_status(session, ada, TaskStatus.PENDING)) == 2


async def test_titles_are_searched_for_what_is_written(manager: DatabaseManager) -> None:
    await make_users(ada=2, bob=1)
    async with get_async_session(read_only=True) as session:
        for text, count in (("ADA", 2), ("100%", 3), ("a%", 0), ("_", 0), ("%", 3), ("' OR 1=1 --", 0), ("\\", 0)):
            assert len(await TASKS.search_by_title(session, text)) == count, text


Ask = Callable[[AsyncSession, dict[str, User]], Awaitable[Any]]

ASKED_ONCE: dict[str, Ask] = {
    "get": lambda session, users: USERS.get(session, users["ada"].id),
    "get_by_username": lambda session, users: USERS.get_by_username(session, "ada"),
    "username_exists": lambda session, users: USERS.username_exists(session, "ada"),
    "get_users_with_task_counts": lambda session, users: USERS.get_users_with_task_counts(session),
    "get_multi": lambda session, users: TASKS.get_multi(session),
    "count": lambda session, users: TASKS.count(session),
    "get_by_user": lambda session, users: TASKS.get_by_user(session, users["ada"].id),
    "search_by_title": lambda session, users: TASKS.search_by_title(session, "ada"),
    "bulk_delete": lambda session, users: TASKS.bulk_delete(session, [uuid7() for _ in range(100)]),
}


async def test_statements_do_not_grow_with_the_rows(manager: DatabaseManager) -> None:
    users = await make_users(ada=40, bob=30, eve=20)
    for name, ask in ASKED_ONCE.items():
        async with get_async_session() as session:
            with statements(manager) as sent:
                await ask(session, users)
        assert len(sent) == 1, (name, sent)
    async with get_async_session(read_only=True) as session:
        with statements(manager) as sent:
            await USERS.get_user_with_tasks(session, users["ada"].id)
        assert len(sent) == 2
