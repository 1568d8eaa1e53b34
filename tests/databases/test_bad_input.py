"""Whatever is handed to a repository comes back exactly, or is refused by a class of `db.errors`, on each engine."""

import asyncio
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from db.connection import close_database, get_async_session, initialize_database
from db.errors import DataLayerError, InvalidFilterError, InvalidInputError, NotFoundError
from db.json_text import UnfitJSONError, to_json_text
from db.models import Task
from db.repositories.base import Page
from db.repositories.filters import OPERATORS
from db.repositories.task import TaskRepository
from db.repositories.user import UserRepository
from db.settings import DatabaseSettings
from tests.databases.conftest import empty_tables

TASKS, USERS = TaskRepository(), UserRepository()
FIELDS = sorted(column.key for column in Task.__table__.columns)
QUICKLY = hypothesis_settings(max_examples=40, deadline=None)

TEXTS = st.text(st.characters(exclude_categories=()), max_size=40)
"""Lone surrogates and NULs among them."""
INSTANTS = st.datetimes(
    timezones=st.sampled_from([UTC, *(timezone(timedelta(hours=hours)) for hours in (-23, -5, 9, 23))])
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    TEXTS,
    st.binary(max_size=8),
    INSTANTS,
    st.datetimes(),
    st.uuids(),
    st.sampled_from(["PENDING", "done", 2**31, -(2**63), 2**64, "x" * 300]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=3) | st.tuples(inner),
    max_leaves=8,
)
SQL = (
    "'; DROP TABLE tasks; --",
    "' OR '1'='1",
    '"; DROP TABLE tasks; --',
    "`; DROP TABLE tasks; #",
    "1; SELECT pg_sleep(60)",
    "' UNION SELECT hashed_password FROM users --",
    "\\'; DROP TABLE tasks; --",
    "title) FROM tasks; DROP TABLE tasks; --",
    "%' OR 1=1 --",
    "${7*7} {{7*7}} %(x)s :x ? $1",
    "/* */ -- # ;",
    "%s %d %%",
)


@pytest.fixture
def runner(settings: DatabaseSettings) -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        made.run(empty_tables(made.run(initialize_database(settings, patience_s=10))))
        yield made
        made.run(close_database())


async def make_owner() -> UUID:
    async with get_async_session() as session:
        return (await USERS.create(session, username="ada")).id


async def refusal(attempt: Awaitable[Any]) -> tuple[Any, DataLayerError | None]:
    """Return what comes of it, and the error of ours if there was one."""
    try:
        return await attempt, None
    except DataLayerError as error:
        assert_one_line(error)
        return None, error


def assert_one_line(error: DataLayerError) -> None:
    assert str(error)
    assert "\n" not in str(error)


def fits(text: str, length: int) -> bool:
    return len(text) <= length and "\x00" not in text and not any(0xD800 <= ord(one) < 0xE000 for one in text)


def test_texts_come_back_or_are_refused(runner: asyncio.Runner) -> None:
    async def stored(names: list[str]) -> None:
        async with get_async_session() as session:
            for name in names:
                if fits(name, 150):
                    user = await USERS.create(session, username=name)
                    assert (user.username, await USERS.username_exists(session, name)) == (name, True)
                    await USERS.update(session, user.id, full_name=name)
                    assert [
                        one.id
                        for one in await USERS.get_multi(session, {"username__contains": name, "full_name": name})
                    ] == [user.id]
                else:
                    with pytest.raises(InvalidInputError):
                        await USERS.create(session, username=name)
            await session.rollback()

    long_ones = st.integers(148, 152).map(lambda length: "\U0001f600" * length)

    @given(st.lists(TEXTS | long_ones, max_size=8, unique=True))
    @QUICKLY
    def check(names: list[str]) -> None:
        runner.run(stored(names))

    check()


def test_instants_come_back_or_are_refused(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())

    async def stored(instant: datetime) -> datetime | None:
        async with get_async_session() as session:
            task = await TASKS.create(session, title="t", user_id=owner, completed_at=instant)
            found = await TASKS.get_multi(session, {"completed_at": instant}, limit=1)
            assert [one.id for one in found] == [task.id]
            held = task.completed_at
            await session.rollback()
            return held

    @given(INSTANTS)
    @QUICKLY
    def check(instant: datetime) -> None:
        try:
            is_held = instant.astimezone(UTC).year >= 1000
        except OverflowError:
            is_held = False
        if is_held:
            assert runner.run(stored(instant)) == instant
        else:
            with pytest.raises(InvalidInputError, match=r"tasks\.completed_at takes the years 1000 to 9999"):
                runner.run(stored(instant))

    check()


def test_json_comes_back_or_is_refused(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())

    async def stored(document: Any) -> Any:
        async with get_async_session() as session:
            task = await TASKS.create(session, title="t", user_id=owner, metadata_json=document)
            held = (await TASKS.update(session, task.id, title="read back")).metadata_json
            await session.rollback()
            return held

    @given(st.dictionaries(TEXTS, ANYTHING, max_size=4))
    @QUICKLY
    def check(document: dict[str, Any]) -> None:
        try:
            to_json_text(document)
        except UnfitJSONError:
            with pytest.raises(InvalidInputError):
                runner.run(stored(document))
        else:
            assert runner.run(stored(document)) == document

    check()
    large = {"text": "ü" * 500_000, "list": list(range(1000)), "sql": list(SQL)}
    assert len(to_json_text(large).encode()) > 2**20 - 50_000
    assert runner.run(stored(large)) == large


def test_any_filter_is_answered_or_refused(runner: asyncio.Runner) -> None:
    """A refusal is made before anything is sent; what is sent is understood."""
    runner.run(make_owner())
    names = (
        st.builds("{}__{}".format, st.sampled_from(FIELDS), st.sampled_from(OPERATORS))
        | st.sampled_from(FIELDS)
        | TEXTS
    )

    async def ask(filters: Any, paging: dict[str, Any]) -> None:
        async with get_async_session(read_only=True) as session:
            page, refused = await refusal(TASKS.get_multi(session, filters, **paging))
            assert refused is None or isinstance(refused, InvalidFilterError)
            assert isinstance(page, Page) or refused is not None
            count, _ = await refusal(TASKS.count(session, filters))
            assert count == 0 or refused is not None

    orders = st.one_of(st.sampled_from([*FIELDS, *(f"-{field}" for field in FIELDS)]), TEXTS)
    paging = st.fixed_dictionaries(
        {},
        optional={
            "order_by": orders | st.lists(orders, max_size=3),
            "limit": ANYTHING,
            "offset": ANYTHING,
            "after": ANYTHING,
        },
    )

    @given(st.dictionaries(names, ANYTHING, max_size=3) | ANYTHING, paging)
    @hypothesis_settings(max_examples=150, deadline=None)
    def check(filters: Any, paging: dict[str, Any]) -> None:
        runner.run(ask(filters, paging))

    check()


def test_any_values_are_stored_or_refused(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())
    values = st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), ANYTHING, max_size=3)

    async def write(given_values: dict[str, Any]) -> None:
        async with get_async_session() as session:
            row = {"title": "t", "user_id": owner, **given_values}
            for attempt in (
                TASKS.create(session, **row),
                TASKS.bulk_create(session, [row]),
                TASKS.upsert(session, by="external_key", **row),
            ):
                _, refused = await refusal(attempt)
                assert refused is None or not refused.can_retry
                await session.rollback()

    @given(values)
    @QUICKLY
    def check(given_values: dict[str, Any]) -> None:
        runner.run(write({name: value for name, value in given_values.items() if name != "session"}))

    check()


def test_any_key_finds_nothing_or_is_refused(runner: asyncio.Runner) -> None:
    async def ask(key: Any) -> None:
        async with get_async_session() as session:
            for attempt in (TASKS.get, TASKS.delete, TASKS.hard_delete, TASKS.restore):
                found, refused = await refusal(attempt(session, key))
                assert found is None
                assert attempt == TASKS.get or isinstance(refused, InvalidInputError | NotFoundError)

    @given(ANYTHING)
    @QUICKLY
    def check(key: Any) -> None:
        runner.run(ask(key))

    check()


def test_sql_is_text_in_every_argument(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())

    async def use(sql: str) -> None:
        async with get_async_session() as session:
            task = await TASKS.create(
                session,
                title=sql,
                description=sql,
                user_id=owner,
                external_key=sql,
                metadata_json={sql: sql},
                tags=[sql],
            )
            assert await TASKS.upsert(session, by="external_key", title=sql, user_id=owner, external_key=sql) is task
            assert (task.title, task.description, task.metadata_json, task.tags) == (sql, sql, {sql: sql}, [sql])
            assert [one.id for one in await TASKS.search_by_title(session, sql)] == [task.id]
            for operator in ("eq", "contains", "starts_with", "ends_with", "icontains"):
                assert await TASKS.count(session, {f"title__{operator}": sql}) == 1
            assert await TASKS.count(session, {"title__in": [sql]}) == 1
            assert await USERS.get_by_username(session, sql) is None
            for refused in (
                TASKS.get_multi(session, {sql: 1}),
                TASKS.get_multi(session, {f"title__{sql}": 1}),
                TASKS.get_multi(session, order_by=sql),
                TASKS.get_multi(session, after=sql),
                TASKS.get(session, sql),
                TASKS.bulk_delete(session, [sql]),
                TASKS.upsert(session, by=sql, title="t", user_id=owner),
                TASKS.create(session, **{sql: 1}),
            ):
                with pytest.raises(InvalidInputError):
                    await refused
            await TASKS.hard_delete(session, task.id)

    for sql in SQL:
        runner.run(use(sql))

    async def rows_left() -> tuple[int, int]:
        async with get_async_session(read_only=True) as session:
            return await USERS.count(session), await TASKS.count(session, include_deleted=True)

    assert runner.run(rows_left()) == (1, 0)
