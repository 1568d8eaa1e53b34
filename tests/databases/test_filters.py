"""Filters, order and pages, the same on each engine."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.orm import selectinload

from db.connection import DatabaseManager, get_async_session
from db.errors import InvalidFilterError
from db.models import Task, TaskStatus, User
from db.repositories.filters import MANY, OPERATORS
from db.repositories.task import TaskRepository
from db.repositories.user import UserRepository
from holdfast.ids import uuid7
from tests.databases.statements import statements

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
TASKS, USERS = TaskRepository(), UserRepository()
TITLES = ("50% off", "50x off", "a_b", "axb", "[x]*?", "back\\slash", "Grosse", "grosse", "quote's", "ünïcode", "/", "")


@pytest.fixture
async def owner(manager: DatabaseManager) -> UUID:
    """Tasks of one user: one of each title, an hour apart, the odd ones completed, and a deleted one."""
    async with get_async_session() as session:
        user = await USERS.create(session, username="ada")
        rows = [
            {
                "title": title,
                "user_id": user.id,
                "status": TaskStatus.COMPLETED if number % 2 else TaskStatus.PENDING,
                "completed_at": LONG_AGO + timedelta(hours=number // 4) if number % 2 else None,
                "description": title.upper() or None,
                "tags": ["a"] if number == 0 else None,
            }
            for number, title in enumerate(TITLES)
        ]
        await TASKS.bulk_create(session, rows)
        deleted = await TASKS.create(session, title="50% gone", user_id=user.id)
        await TASKS.delete(session, deleted.id)
    return user.id


async def titles(filters: Any = None, **paging: Any) -> list[str]:
    async with get_async_session(read_only=True) as session:
        found = await TASKS.get_multi(session, filters, **paging)
        assert await TASKS.count(session, filters) == len(found)
        assert await TASKS.exists(session, filters) is bool(found)
        return sorted(task.title for task in found)


FITTING: list[tuple[dict[str, Any], list[str]]] = [
    ({"title": "axb"}, ["axb"]),
    ({"title__eq": "GROSSE"}, []),
    ({"title": "axb "}, []),
    ({"title__in": ["axb", "a_b", "none"]}, ["a_b", "axb"]),
    ({"title__in": []}, []),
    ({"title__not_in": TITLES[2:]}, ["50% off", "50x off"]),
    ({"title__contains": "0% o"}, ["50% off"]),
    ({"title__contains": "_"}, ["a_b"]),
    ({"title__contains": "]*?"}, ["[x]*?"]),
    ({"title__contains": "[x"}, ["[x]*?"]),
    ({"title__contains": "\\"}, ["back\\slash"]),
    ({"title__contains": "/"}, ["/"]),
    ({"title__contains": "'s"}, ["quote's"]),
    ({"title__contains": "ünï"}, ["ünïcode"]),
    ({"title__contains": ""}, sorted(TITLES)),
    ({"title__contains": "Gro"}, ["Grosse"]),
    ({"title__starts_with": "50%"}, ["50% off"]),
    ({"title__starts_with": "gro"}, ["grosse"]),
    ({"title__ends_with": "off"}, ["50% off", "50x off"]),
    ({"title__ends_with": "?"}, ["[x]*?"]),
    ({"title__icontains": "GROSSE"}, ["Grosse", "grosse"]),
    ({"title__icontains": "0% OFF"}, ["50% off"]),
    ({"description": None}, [""]),
    ({"description__ne": None}, sorted(TITLES[:-1])),
    ({"description__is_null": True}, [""]),
    ({"tags__is_null": False}, ["50% off"]),
    ({"status": "COMPLETED", "title__starts_with": "50"}, ["50x off"]),
    ({"status__ne": TaskStatus.COMPLETED, "title__starts_with": "50"}, ["50% off"]),
    ({"status__in": [TaskStatus.COMPLETED, "CANCELLED"], "title__ends_with": "off"}, ["50x off"]),
    ({"completed_at__lt": LONG_AGO + timedelta(hours=1)}, ["50x off", "axb"]),
    ({"completed_at__le": LONG_AGO}, ["50x off", "axb"]),
    ({"completed_at__gt": LONG_AGO + timedelta(hours=1)}, ["", "ünïcode"]),
    ({"completed_at__ge": LONG_AGO + timedelta(hours=2)}, ["", "ünïcode"]),
    ({"title__contains": "'; DROP TABLE tasks; --"}, []),
    ({"title": "' OR '1'='1"}, []),
    ({"title": "x" * 100_000}, []),
]


async def test_filters(owner: UUID) -> None:
    found = [(filters, await titles(filters)) for filters, _ in FITTING]
    assert found == FITTING


async def test_many_values_at_once(owner: UUID, manager: DatabaseManager) -> None:
    async with get_async_session(read_only=True) as session:
        ids = [task.id for task in await TASKS.get_multi(session)] + [uuid7() for _ in range(MANY - len(TITLES))]
        assert await TASKS.count(session, {"id__in": ids}) == len(TITLES)
        with pytest.raises(InvalidFilterError, match="id__in: takes at most 10000 values, not 10001"):
            await TASKS.count(session, {"id__in": [*ids, uuid7()]})


UNFIT: list[tuple[Any, str]] = [
    ({"titel": "x"}, "filter 'titel': Task has no such field; did you mean 'title'?"),
    ({"user": "x"}, "filter 'user': Task has no such field"),
    ({"title__like": "x"}, "filter title: no operator 'like'; there are eq, ne"),
    ({"title__": "x", "title__contains__x": 1}, "filter title: no operator 'contains__x'"),
    ({"": 1}, "filter '': Task has no such field"),
    ({1: 1}, "filter '1': Task has no such field"),
    ({"title; DROP TABLE tasks": 1}, "Task has no such field"),
    ({"title": 5}, "filter title__eq: tasks.title takes text, not int"),
    ({"title": "\x00"}, "filter title__eq: tasks.title the text holds a NUL"),
    ({"title__contains": "\udc80"}, "half a surrogate pair"),
    ({"title__in": ["a", 5]}, "filter title__in: tasks.title takes text, not int"),
    ({"title__in": "abc"}, "filter title__in: takes a list of values, not str"),
    ({"title__in": [None]}, "use title__is_null"),
    ({"title__gt": None}, "None compares with nothing; use title__is_null"),
    ({"title__is_null": 1}, "takes True or False, not int"),
    ({"status": "DONE"}, "tasks.status is one of PENDING, IN_PROGRESS, COMPLETED, CANCELLED"),
    ({"status__contains": "PENDING"}, "filter status__contains: matches text in a column of text"),
    ({"user_id": "ada"}, "tasks.user_id takes a UUID or its text"),
    ({"created_at__ge": "2020-01-01"}, "tasks.created_at takes a datetime, not str"),
    ({"created_at__ge": datetime(2020, 1, 1)}, "takes a datetime with a time zone"),  # noqa: DTZ001
    ({"is_deleted": 1}, "tasks.is_deleted takes bool, not int"),
    ({"metadata_json": {}}, "metadata_json is JSON: only is_null asks for it"),
    ({"tags__contains": "a"}, "tags is JSON: only is_null asks for it"),
    ([("title", "x")], "filters are a mapping of names to values, not list"),
]


async def test_a_filter_that_does_not_fit_is_named(manager: DatabaseManager) -> None:
    async with get_async_session(read_only=True) as session:
        with statements(manager) as sent:
            for filters, message in UNFIT:
                for ask in (TASKS.get_multi, TASKS.count, TASKS.exists):
                    with pytest.raises(InvalidFilterError) as caught:
                        await ask(session, filters)
                    assert message in str(caught.value)
                    assert "\n" not in str(caught.value)
        assert sent == []


def test_each_operator_is_tried() -> None:
    assert {name.partition("__")[2] or "eq" for filters, _ in FITTING for name in filters} == set(OPERATORS)


async def walk(order_by: str | Sequence[str], *, limit: int = 5) -> list[Task]:
    """Follow the cursors; returns all rows."""
    rows: list[Task] = []
    after = None
    async with get_async_session(read_only=True) as session:
        while True:
            page = await TASKS.get_multi(session, order_by=order_by, limit=limit, after=after)
            rows += page
            after = page.next_cursor
            assert (after is None) == (len(rows) == len(TITLES))
            if after is None:
                return rows


ORDERS: list[Any] = [
    (),
    "id",
    "-id",
    "title",
    "-title",
    ["status", "-title"],
    "completed_at",
    "-completed_at",
    ["-status", "completed_at"],
    ["description", "-created_at"],
    "is_deleted",
    ["-user_id", "-updated_at"],
]


async def test_cursors_visit_each_row_once_in_its_order(owner: UUID) -> None:
    for order_by in ORDERS:
        whole = [task.id for task in await walk(order_by, limit=len(TITLES))]
        assert [task.id for task in await walk(order_by)] == whole, order_by
        assert [task.id for task in await walk(order_by, limit=1)] == whole, order_by
        async with get_async_session(read_only=True) as session:
            for offset in (0, 3, 11, 12, 10**9):
                page = await TASKS.get_multi(session, order_by=order_by, limit=4, offset=offset)
                assert [task.id for task in page] == whole[offset : offset + 4]


async def test_rows_come_in_their_order(owner: UUID) -> None:
    """As Python sorts, by bytes; the first field decides first."""
    assert [task.title for task in await walk("-title")] == sorted(TITLES, reverse=True)
    by_two = [(task.status.value, task.title) for task in await walk(["status", "-title"])]
    assert by_two == sorted(sorted(by_two, key=lambda pair: pair[1], reverse=True), key=lambda pair: pair[0])
    ids = [task.id for task in await walk(())]
    assert ids == sorted(ids)
    assert [task.id for task in await walk("-id")] == ids[::-1]


@pytest.mark.parametrize(("order_by", "descends"), [("completed_at", False), ("-completed_at", True)])
async def test_nulls_come_last(owner: UUID, order_by: str, descends: bool) -> None:
    times = [task.completed_at for task in await walk(order_by)]
    known = [time for time in times if time is not None]
    assert known == sorted(known, reverse=descends)
    assert times == known + [None] * (len(TITLES) - len(known))


async def test_a_cursor_stays_right_while_rows_come_and_go(owner: UUID) -> None:
    async with get_async_session() as session:
        first = await TASKS.get_multi(session, order_by="title", limit=4)
        await TASKS.hard_delete(session, first[0].id)
        await TASKS.hard_delete(session, first[3].id)
        await TASKS.create(session, title="  before the others", user_id=owner)
        second = await TASKS.get_multi(session, order_by="title", limit=4, after=first.next_cursor)
        assert [task.title for task in second] == sorted(TITLES)[4:8]


UNFIT_PAGES: list[tuple[Any, str]] = [
    ({"order_by": "titel"}, "order by 'titel': Task has no such field; did you mean 'title'?"),
    ({"order_by": "--title"}, "order by '-title': Task has no such field"),
    ({"order_by": "title; DROP TABLE tasks"}, "Task has no such field"),
    ({"order_by": "metadata_json"}, "order by 'metadata_json': it has no order that every engine knows"),
    ({"limit": 0}, "limit='0': takes a number from 1 to 10000"),
    ({"limit": 10_001}, "limit='10001'"),
    ({"limit": "5"}, "limit='5'"),
    ({"limit": True}, "limit='True'"),
    ({"offset": -1}, "offset='-1': takes a number from 0"),
    ({"offset": 2**63}, "offset='9223372036854775808'"),
    ({"after": "nonsense"}, "after='nonsense' is no cursor: pass the next_cursor of a page in the order id"),
    ({"after": ""}, "is no cursor"),
    ({"after": "ü"}, "is no cursor"),
    ({"after": 5}, "is no cursor"),
    ({"after": "WyJpZCJd"}, "is no cursor"),  # ["id"]
    ({"after": "WyJpZCIsbnVsbF0"}, "is no cursor"),  # ["id",null]
    ({"after": "WyJpZCIsIngiXQ"}, "is no cursor"),  # ["id","x"]
    ({"after": "WyJpZCIsWzFdXQ"}, "is no cursor"),  # ["id",[1]]
    ({"after": "W1tbW1tbW1tbW1tb"}, "is no cursor"),
    ({"after": "WyJ0aXRsZSIsIngiXQ"}, "is one of another order"),  # ["title","x"]
    ({"after": "x", "offset": 1}, "offset and after: a page begins at one of them"),
]


async def test_a_page_that_does_not_fit_is_named(manager: DatabaseManager) -> None:
    async with get_async_session(read_only=True) as session:
        for paging, message in UNFIT_PAGES:
            with pytest.raises(InvalidFilterError) as caught:
                await TASKS.get_multi(session, **paging)
            assert message in str(caught.value)


async def test_deleted_rows_on_demand_and_related_rows_at_once(owner: UUID, manager: DatabaseManager) -> None:
    async with get_async_session(read_only=True) as session:
        with statements(manager) as sent:
            page = await TASKS.get_multi(session, include_deleted=True, options=[selectinload(Task.user)])
        assert len(sent) == 2
        assert len(page) == len(TITLES) + 1
        assert {task.user.username for task in page} == {"ada"}
        assert page.next_cursor is None


async def test_a_stream_reads_all_in_batches_and_lets_others_write(owner: UUID, manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        with statements(manager) as sent:
            seen = [task.title async for task in TASKS.stream(session, order_by="-title", batch_rows=5)]
        assert seen == sorted(TITLES, reverse=True)
        assert len(sent) == 3
        async for task in TASKS.stream(session, {"status": "PENDING"}, batch_rows=2):
            await TASKS.update(session, task.id, status="CANCELLED")
            await TASKS.delete(session, task.id)
        assert await TASKS.count(session, {"status": "CANCELLED"}, include_deleted=True) == len(TITLES) // 2
        everything = [
            task async for task in TASKS.stream(session, include_deleted=True, options=[selectinload(Task.user)])
        ]
        assert len(everything) == len(TITLES) + 1
        assert isinstance(everything[0].user, User)
