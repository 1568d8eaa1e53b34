"""Models as JSON and back, by `ModelSerializer` and the pydantic schemas."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError
from sqlalchemy import Engine, Numeric, event, select
from sqlalchemy.orm import Mapped, mapped_column, selectinload

from db.base import Base
from db.connection import DatabaseManager, get_async_session
from db.fields import FieldError
from db.mixins import UUIDMixin
from db.models import Task, TaskStatus, User
from db.schemas import TaskCreate, TaskRead, TaskUpdate, UserCreate, UserRead, UserUpdate
from db.serializers import ModelSerializer
from tests.databases.scratch import SCRATCH, scratch_tables

THEN = datetime(2026, 1, 31, 7, 30, 15, 123456, tzinfo=UTC)


class Colour(Enum):
    RED = 1
    BLUE = 2


class ScratchThing(UUIDMixin, Base):
    metadata = SCRATCH

    price: Mapped[Decimal | None] = mapped_column(Numeric(12, 2))
    colour: Mapped[Colour | None]
    day: Mapped[date | None]
    clock: Mapped[time | None]
    took: Mapped[timedelta | None]
    count: Mapped[int] = mapped_column(default=0)
    ratio: Mapped[float | None]
    on: Mapped[bool | None]
    raw: Mapped[bytes | None]
    name: Mapped[str | None]


@contextmanager
def no_statements(manager: DatabaseManager) -> Iterator[None]:
    def refuse(*args: Any) -> None:
        raise AssertionError(f"a hidden query: {args[2]}")

    engine: Engine = manager.engine.sync_engine
    event.listen(engine, "before_cursor_execute", refuse)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", refuse)


@pytest.fixture
async def ada(manager: DatabaseManager) -> User:
    user = User(username="ada", email="ada@example.org", hashed_password="hash")
    user.tasks = [
        Task(title="one", completed_at=THEN, status=TaskStatus.COMPLETED, metadata_json={"a": [1]}),
        Task(title="two", tags=["x"]),
    ]
    async with get_async_session() as session:
        session.add(user)
    return user


@pytest.fixture
async def loaded(ada: User) -> AsyncIterator[User]:
    """The user as a query gives it, with the tasks and theirs users."""
    async with get_async_session(read_only=True) as session:
        query = select(User).options(selectinload(User.tasks).selectinload(Task.user))
        yield (await session.execute(query)).scalar_one()


async def test_only_what_is_loaded_and_chosen_is_shown(manager: DatabaseManager, loaded: User) -> None:
    with no_statements(manager):
        plain = ModelSerializer(User).to_dict(loaded)
        chosen = ModelSerializer(User, relationships=["tasks"], exclude=["tasks.user_id", "email"]).to_dict(loaded)
    assert plain == {
        "id": str(loaded.id),
        "username": "ada",
        "email": "ada@example.org",
        "full_name": None,
        "is_active": True,
        "is_superuser": False,
        "created_at": loaded.created_at.isoformat(),
        "updated_at": loaded.updated_at.isoformat(),
    }
    assert json.loads(json.dumps(chosen)) == chosen
    tasks = sorted(chosen["tasks"], key=lambda task: str(task["title"]))
    assert [(task["title"], task["status"], task["completed_at"]) for task in tasks] == [
        ("one", "COMPLETED", THEN.isoformat()),
        ("two", "PENDING", None),
    ]
    assert (tasks[0]["metadata_json"], tasks[1]["tags"]) == ({"a": [1]}, ["x"])
    assert "email" not in chosen
    assert "user_id" not in tasks[0]
    assert ModelSerializer(User, include=["hashed_password"]).to_dict(loaded)["hashed_password"] == "hash"


async def test_cycles_and_depth(manager: DatabaseManager, loaded: User) -> None:
    serializer = ModelSerializer(User, relationships=["tasks", "tasks.user", "tasks.user.tasks"])
    with no_statements(manager):
        shown = serializer.to_dict(loaded)
        flat = ModelSerializer(User, relationships=["tasks"], depth=0).to_dict(loaded)
    assert [task["user"] for task in shown["tasks"]] == [{"id": str(loaded.id)}] * 2
    assert "tasks" not in flat
    assert serializer.bulk_to_dict([loaded, loaded]) == [shown, shown]


async def test_what_is_not_loaded_is_left_out(manager: DatabaseManager, ada: User) -> None:
    async with get_async_session(read_only=True) as session:
        user = (await session.execute(select(User))).scalar_one()
        with no_statements(manager):
            assert "tasks" not in ModelSerializer(User, relationships=["tasks"]).to_dict(user)
        session.expire(user, ["email"])
        with no_statements(manager):
            assert "email" not in ModelSerializer(User).to_dict(user)


def test_unknown_paths_are_named() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"relationships": ["task"]}, "User.task='task' is no relationship: User has tasks"),
        ({"relationships": ["tasks.title"]}, "User.tasks.title='tasks.title' is no relationship: Task has user"),
        ({"exclude": ["tasks.titel"]}, "User.tasks.titel='tasks.titel' is no field: Task has "),
        ({"exclude": ["mail"]}, "User.mail='mail' is no field: User has created_at, email, "),
    ]
    for arguments, message in wrong:
        with pytest.raises(FieldError) as caught:
            ModelSerializer(User, **arguments)
        assert str(caught.value).startswith(message)


async def test_forth_and_back(manager: DatabaseManager, loaded: User) -> None:
    serializer = ModelSerializer(Task)
    for task in loaded.tasks:
        shown = serializer.to_dict(task)
        again = serializer.from_dict(json.loads(json.dumps(shown)))
        assert serializer.to_dict(again) == shown
        assert (again.id, again.status, again.created_at) == (task.id, task.status, task.created_at)
    async with scratch_tables(manager), get_async_session() as session:
        values = {
            "price": "12.50",
            "colour": "BLUE",
            "day": "2026-01-31",
            "clock": "08:30:00.000001",
            "took": 2.0,
            "count": 2,
        }
        values |= {"ratio": 0.1, "on": True, "name": "n"}
        thing = ModelSerializer(ScratchThing).from_dict(values)
        session.add(thing)
        await session.flush()
        await session.refresh(thing)
        assert (thing.price, thing.colour, thing.day, thing.clock) == (
            Decimal("12.50"),
            Colour.BLUE,
            date(2026, 1, 31),
            time(8, 30, 0, 1),
        )
        assert (thing.took, thing.ratio, thing.on) == (timedelta(seconds=2), 0.1, True)
        shown = ModelSerializer(ScratchThing).to_dict(thing)
        thing.raw = b"\0x" * 40_000
        await session.flush()
        await session.refresh(thing)
        assert thing.raw == b"\0x" * 40_000
        assert (shown["price"], shown["colour"], shown["took"]) == ("12.50", 2, 2.0)
        assert ModelSerializer(ScratchThing).to_dict(ModelSerializer(ScratchThing).from_dict(shown)) == shown


@pytest.mark.parametrize(
    ("model", "name", "value", "message"),
    [
        (Task, "completed_at", "yesterday", "is no time: write it as 2026-01-31T08:30:00+01:00"),
        (Task, "completed_at", "2026-01-31T08:30:00", "has no offset: write it as 2026-01-31T08:30:00+01:00"),
        (Task, "completed_at", 1769848215, "is no time"),
        (Task, "user_id", "x", "is no UUID: write its 32 hexadecimal digits"),
        (Task, "status", "LATER", "is none of PENDING, IN_PROGRESS, COMPLETED, CANCELLED"),
        (Task, "status", None, "may not be empty: give a value, or leave the field out"),
        (Task, "title", 3, "is a int and no str"),
        (Task, "title", "x" * 256, "has 256 characters but the field takes 255: shorten it"),
        (Task, "title", "a\0b", "the text holds a NUL at position 1, which PostgreSQL cannot store: take it out"),
        (Task, "metadata_json", {"a": float("nan")}, "$.a is nan"),
        (Task, "is_deleted", 1, "is a int and no bool"),
        (Task, "titel", "x", "is no field of Task: did you mean 'title'?"),
        (User, "hashed_password", "x", "is private: leave it out"),
        (ScratchThing, "price", 1.5, "is no decimal number: write it as text, as in '12.50'"),
        (ScratchThing, "price", "NaN", "is no finite number"),
        (ScratchThing, "day", "31.1.2026", "is no date: write it as 2026-01-31"),
        (ScratchThing, "took", "1 h", "is no duration: write its seconds as a number"),
        (ScratchThing, "count", True, "is a bool and no int"),
        (ScratchThing, "count", "1", "is a str and no int"),
    ],
)
def test_errors_name_field_and_value(model: type[Base], name: str, value: Any, message: str) -> None:
    with pytest.raises(FieldError) as caught:
        ModelSerializer(model).from_dict({name: value})
    assert str(caught.value).startswith(f"{model.__name__}.{name}=")
    assert message in str(caught.value)
    assert (caught.value.field, caught.value.model) == (name, model.__name__)


async def test_schemas_read_what_the_models_hold(loaded: User) -> None:
    user = UserRead.model_validate(loaded)
    assert (user.id, user.username, user.created_at) == (loaded.id, "ada", loaded.created_at)
    assert "password" not in user.model_dump_json()
    (task,) = (TaskRead.model_validate(task) for task in loaded.tasks if task.title == "one")
    assert (task.status, task.completed_at, task.metadata_json) == (TaskStatus.COMPLETED, THEN, {"a": [1]})


def test_schemas_take_what_every_engine_can_store() -> None:
    user_id = UUID(int=1)
    made = TaskCreate(title="t", user_id=user_id, completed_at=THEN, tags=["x"], metadata_json={"a": 1})
    assert Task(**made.model_dump()).status is TaskStatus.PENDING
    assert UserCreate(username="ada", email="").email is None
    assert TaskUpdate(description=None, status=TaskStatus.CANCELLED).changes() == {
        "description": None,
        "status": TaskStatus.CANCELLED,
    }
    assert repr(UserCreate(username="ada", password="canary")).count("canary") == 0
    wrong: list[tuple[type[Any], dict[str, Any], str]] = [
        (TaskCreate, {"title": "", "user_id": user_id}, "at least 1 character"),
        (TaskCreate, {"title": "x" * 256, "user_id": user_id}, "at most 255 characters"),
        (TaskCreate, {"title": "a\0", "user_id": user_id}, "holds a NUL"),
        (TaskCreate, {"title": "t", "user_id": user_id, "metadata_json": {"a": ["\0"]}}, r"\$.a\[0\] holds a NUL"),
        (TaskCreate, {"title": "t", "user_id": user_id, "completed_at": "2026-01-31T08:30:00"}, "timezone"),
        (TaskCreate, {"title": "t", "user_id": user_id, "completed_at": "0900-01-31T08:30:00Z"}, "1000 to 9999"),
        (TaskCreate, {"title": "t", "user_id": user_id, "id": user_id}, "Extra inputs are not permitted"),
        (TaskUpdate, {"title": None}, "title may not be null"),
        (UserUpdate, {"is_active": None}, "is_active may not be null"),
        (UserCreate, {"username": "ada", "email": "nobody"}, "String should match pattern"),
    ]
    for schema, values, message in wrong:
        with pytest.raises(ValidationError, match=message):
            schema(**values)
