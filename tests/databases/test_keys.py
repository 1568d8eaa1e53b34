"""Keys that are taken, that a deleted row has, that name a row to change, or that are none; the same on each engine."""

import pytest
from sqlalchemy import select

from db.connection import DatabaseManager, get_async_session
from db.errors import DuplicateKeyError, InvalidInputError
from db.mixins import acting_as
from db.models import User
from db.repositories.task import TaskRepository
from db.repositories.user import UserRepository
from holdfast.ids import uuid7

USERS, TASKS = UserRepository(), TaskRepository()


async def test_a_taken_key_leaves_the_session_of_use(manager: DatabaseManager) -> None:
    """A refused statement would end PostgreSQL's transaction."""
    async with get_async_session() as session:
        await USERS.create(session, username="ada", email="ada@example.org")
        bob = await USERS.create(session, username="bob")
        for attempt in (
            USERS.create(session, username="eve", email="ada@example.org"),
            USERS.update(session, bob.id, email="ada@example.org"),
            USERS.upsert(session, by="username", username="bob", email="ada@example.org"),
            USERS.bulk_create(session, [{"username": "eve", "email": "ada@example.org"}]),
            USERS.bulk_update(session, [{"id": bob.id, "email": "ada@example.org"}]),
        ):
            with pytest.raises(DuplicateKeyError, match="is taken; choose another one") as caught:
                await attempt
            found = caught.value
            assert (found.table, found.columns, found.constraint) == ("users", ("email",), "uq_users_email")
            assert found.deleted_id is None
        assert bob.email is None
    async with get_async_session(read_only=True) as session:
        assert (await session.execute(select(User.username).order_by(User.username))).scalars().all() == ["ada", "bob"]


async def test_a_key_that_a_deleted_row_has(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        owner = await USERS.create(session, username="ada")
        task = await TASKS.create(session, title="t", user_id=owner.id, external_key="k-1")
        other = await TASKS.create(session, title="t", user_id=task.user_id)
        await TASKS.delete(session, task.id)
        row = {"title": "again", "user_id": task.user_id, "external_key": "k-1"}
        for attempt in (
            TASKS.create(session, **row),
            TASKS.update(session, other.id, external_key="k-1"),
            TASKS.upsert(session, by="external_key", **row),
            TASKS.bulk_create(session, [{**row, "external_key": "k-0"}, row]),
            TASKS.bulk_update(session, [{"id": other.id, "external_key": "k-1"}]),
        ):
            with pytest.raises(DuplicateKeyError, match="is taken by a soft-deleted row; bring that back") as caught:
                await attempt
            assert caught.value.constraint == "uq_tasks_external_key"
            assert caught.value.deleted_id == task.id
        restored = await TASKS.restore(session, caught.value.deleted_id)
        assert restored.external_key == "k-1"


async def test_what_can_be_no_key_is_refused(manager: DatabaseManager) -> None:
    for key in (None, 5, "no uuid", "'; DROP TABLE users; --", b"x"):
        await refuse_key(key)


async def refuse_key(key: object) -> None:
    async with get_async_session() as session:
        for attempt in (
            TASKS.get(session, key),
            TASKS.update(session, key, title="x"),
            TASKS.delete(session, key),
            TASKS.hard_delete(session, key),
            TASKS.restore(session, key),
            TASKS.bulk_delete(session, [uuid7(), key]),
        ):
            with pytest.raises(InvalidInputError, match=r"tasks\.id (takes a UUID|is never NULL)"):
                await attempt


async def test_upsert_inserts_or_changes(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        owner = await USERS.create(session, username="ada")
        with acting_as("first"):
            made = await TASKS.upsert(session, by="external_key", external_key="k", title="a", user_id=owner.id)
        created_at, updated_at = made.created_at, made.updated_at
        with acting_as("second"):
            again = await TASKS.upsert(session, by=["external_key"], external_key="k", title="b", user_id=owner.id)
        assert again is made
        assert (again.title, again.created_at, again.created_by, again.updated_by) == (
            "b",
            created_at,
            "first",
            "second",
        )
        assert again.updated_at >= updated_at
        by_id = await TASKS.upsert(session, by="id", id=made.id, title="c", user_id=owner.id)
        assert (by_id is made, made.title, made.external_key) == (True, "c", "k")
        assert await TASKS.count(session) == 1
        only_key = await USERS.upsert(session, by="username", username="ada")
        assert only_key is owner


async def test_upsert_by_what_is_no_key(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        with pytest.raises(InvalidInputError, match="upsert by 'title': no unique key; there are id; external_key"):
            await TASKS.upsert(session, by="title", title="t", user_id=uuid7())
        with pytest.raises(InvalidInputError, match="upsert by external_key: the values must have it"):
            await TASKS.upsert(session, by="external_key", title="t", user_id=uuid7())
