"""The column types: the same value comes back on every engine."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from db.connection import DatabaseManager, close_database, get_async_session, initialize_database
from db.models import Task, TaskStatus, User
from db.repositories.job_run import database_now
from db.settings import DatabaseSettings
from db.types import utc_now
from holdfast.ids import uuid7
from tests.databases.conftest import empty_tables

OFFSETS = st.integers(min_value=-14 * 60, max_value=14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
INSTANTS = st.datetimes(datetime(1000, 1, 3), datetime(9999, 12, 29), timezones=OFFSETS)  # noqa: DTZ001
TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
# Beyond, PostgreSQL's jsonb keeps a float's decimal digits and gives them back as an integer.
LARGEST = 2**53
NUMBERS = st.integers(-LARGEST, LARGEST) | st.floats(-LARGEST, LARGEST)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


async def make_owner() -> UUID:
    owner = uuid7()
    async with get_async_session() as session:
        await session.execute(insert(User).values(id=owner, username=f"owner {owner}"))
    return owner


async def stored(owner: UUID, values: list[dict[str, Any]], column: Any) -> list[Any]:
    """Write one task for each of the values, and return what the column holds then."""
    ids = [uuid7() for _ in values]
    rows = [{"id": id_, "title": "t", "user_id": owner, **value} for id_, value in zip(ids, values, strict=True)]
    async with get_async_session() as session:
        await session.execute(insert(Task), rows)
    async with get_async_session(read_only=True) as session:
        query = select(Task.id, column).where(Task.id.in_(ids))
        found = {row[0]: row[1] for row in await session.execute(query)}
    return [found[id_] for id_ in ids]


@pytest.fixture
def runner(settings: DatabaseSettings) -> Iterator[asyncio.Runner]:
    """An event loop for hypothesis, which knows none, with a pool of its own on a migrated database."""
    with asyncio.Runner() as made:
        made.run(empty_tables(made.run(initialize_database(settings, patience_s=10))))
        yield made
        made.run(close_database())


def test_instants_come_back_to_the_microsecond(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())

    @given(st.lists(INSTANTS, min_size=1, max_size=20))
    @hypothesis_settings(max_examples=25, deadline=None)
    def check(instants: list[datetime]) -> None:
        back = runner.run(stored(owner, [{"completed_at": instant} for instant in instants], Task.completed_at))
        assert back == instants
        assert all(instant.tzinfo is UTC for instant in back)

    check()


def test_instants_are_compared_and_sorted_by_the_database_as_by_python(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())

    async def sort(instants: list[datetime]) -> tuple[list[datetime], int]:
        await stored(owner, [{"completed_at": instant} for instant in instants], Task.completed_at)
        async with get_async_session() as session:
            ordered = list((await session.execute(select(Task.completed_at).order_by(Task.completed_at))).scalars())
            below = select(Task.id).where(Task.completed_at < instants[0])
            count = len((await session.execute(below)).all())
            await session.execute(delete(Task))
        return [instant for instant in ordered if instant is not None], count

    @given(st.lists(INSTANTS, min_size=1, max_size=10))
    @hypothesis_settings(max_examples=15, deadline=None)
    def check(instants: list[datetime]) -> None:
        assert runner.run(sort(instants)) == (sorted(instants), sum(one < instants[0] for one in instants))

    check()


def test_json_comes_back(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())

    @given(st.lists(st.dictionaries(TEXTS, JSON, max_size=5), min_size=1, max_size=5))
    @hypothesis_settings(max_examples=40, deadline=None)
    def check(documents: list[dict[str, Any]]) -> None:
        assert runner.run(stored(owner, [{"metadata_json": one} for one in documents], Task.metadata_json)) == documents

    check()


def test_texts_come_back(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())

    @given(st.lists(TEXTS, min_size=1, max_size=10))
    @hypothesis_settings(max_examples=40, deadline=None)
    def check(texts: list[str]) -> None:
        assert runner.run(stored(owner, [{"description": one} for one in texts], Task.description)) == texts

    check()


async def test_none_is_null_and_not_jsons_null(manager: DatabaseManager) -> None:
    owner = await make_owner()
    assert await stored(owner, [{"metadata_json": None}], Task.metadata_json) == [None]
    async with get_async_session(read_only=True) as session:
        assert len((await session.execute(select(Task.id).where(Task.metadata_json.is_(None)))).all()) == 1


async def test_a_naive_datetime_is_refused(manager: DatabaseManager) -> None:
    owner = await make_owner()
    naive = datetime(2026, 1, 31, 8, 30)  # noqa: DTZ001
    with pytest.raises(StatementError, match="2026-01-31T08:30:00 has no time zone: pass an aware datetime"):
        await stored(owner, [{"completed_at": naive}], Task.completed_at)


ANY_INSTANTS = st.datetimes(timezones=OFFSETS) | st.sampled_from([datetime.min, datetime.max]).map(  # noqa: DTZ901
    lambda instant: instant.replace(tzinfo=timezone(timedelta(hours=14 if instant.year == 1 else -14)))
)


def test_an_instant_comes_back_or_is_refused_alike_on_every_engine(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())

    @given(ANY_INSTANTS)
    @hypothesis_settings(max_examples=60, deadline=None)
    def check(instant: datetime) -> None:
        try:
            fits = instant.astimezone(UTC).year >= 1000
        except OverflowError:
            fits = False
        if fits:
            assert runner.run(stored(owner, [{"completed_at": instant}], Task.completed_at)) == [instant]
        else:
            with pytest.raises(StatementError, match=r"is not of the years 1000 to 9999 \(UTC\)"):
                runner.run(stored(owner, [{"completed_at": instant}], Task.completed_at))

    check()


def test_a_text_comes_back_or_is_refused_alike_on_every_engine(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())
    odd = st.sampled_from(
        ["a\0b", "\ud800", "x\udfff", "", " ", "'; DROP TABLE tasks; --", "%s%(x)s:y", "\\\\n", "\U0010ffff"]
    )

    @given(st.text() | odd, st.text(max_size=255) | odd)
    @hypothesis_settings(max_examples=60, deadline=None)
    def check(description: str, title: str) -> None:
        for column, value in ((Task.description, description), (Task.title, title)):
            if "\0" in value or any(0xD800 <= ord(character) < 0xE000 for character in value):
                with pytest.raises(StatementError, match=r"the text holds (a NUL|half a surrogate pair) at position"):
                    runner.run(stored(owner, [{column.key: value}], column))
            else:
                assert runner.run(stored(owner, [{column.key: value}], column)) == [value]

    check()


def test_uuids_come_back_and_are_found_by_their_text(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())

    async def find(run_id: UUID, written: object) -> list[UUID | None]:
        await stored(owner, [{"import_run_id": written}], Task.id)
        async with get_async_session() as session:
            query = select(Task.import_run_id).where(Task.import_run_id == str(run_id))
            found = list((await session.execute(query)).scalars())
            await session.execute(delete(Task))
        return found

    @given(st.uuids(), st.sampled_from([UUID, str, lambda text: UUID(text).hex, str.upper]))
    @example(UUID("68fad047-403e-9a99-8040-c0a15ff32385"), UUID)
    @example(UUID("68fad047-403e-9a99-8140-c0a15ff32385"), UUID)
    @hypothesis_settings(max_examples=40, deadline=None)
    def check(run_id: UUID, form: Any) -> None:
        if run_id.hex[12] in "89abcdef" and run_id.bytes[8] <= 0x80:
            with pytest.raises(StatementError, match="has a version and a variant that MariaDB cannot hold together"):
                runner.run(find(run_id, form(str(run_id))))
        else:
            assert runner.run(find(run_id, form(str(run_id)))) == [run_id]

    check()


@pytest.mark.parametrize("value", ["", "x", "0" * 31, "0" * 33, 1, b"0" * 16, ["a"]])
async def test_what_is_no_uuid_is_refused(manager: DatabaseManager, value: object) -> None:
    with pytest.raises(StatementError, match="is no UUID: pass one, or its text of 32 hexadecimal digits"):
        await stored(await make_owner(), [{"import_run_id": value}], Task.id)


async def test_the_databases_clock_is_right_and_can_be_compared(manager: DatabaseManager) -> None:
    before = datetime.now(UTC)
    async with get_async_session(read_only=True) as session:
        now = await database_now(session)
    after = datetime.now(UTC)
    # SQLite gives milliseconds, and so cuts off up to one.
    assert before - timedelta(milliseconds=1) <= now <= after
    owner = await make_owner()
    await stored(owner, [{"completed_at": now + timedelta(hours=sign)} for sign in (-1, 1)], Task.completed_at)
    async with get_async_session(read_only=True) as session:
        past = (await session.execute(select(Task.completed_at).where(Task.completed_at <= utc_now()))).scalars().all()
    assert past == [now - timedelta(hours=1)]


async def test_the_servers_clock_fills_in_what_raw_sql_leaves_out(manager: DatabaseManager) -> None:
    before = datetime.now(UTC)
    async with get_async_session() as session:
        connection = await session.connection()
        key = uuid7()
        shown = str(key) if manager.engine.dialect.name == "postgresql" else key.hex
        await connection.exec_driver_sql(f"INSERT INTO users (id, username) VALUES ('{shown}', 'raw')")
        user = (await session.execute(select(User))).scalar_one()
    assert user.id == key
    assert before - timedelta(seconds=1) <= user.created_at <= datetime.now(UTC)
    assert user.created_at == user.updated_at
    assert (user.is_active, user.is_superuser) == (True, False)


async def test_keys_are_compared_byte_by_byte(manager: DatabaseManager) -> None:
    owner = await make_owner()
    keys = ["x", "x ", " x", "X", "x\u0301", "\u00e9", "e\u0301", "e", "\u00df", "ss", "\U0001f600", "\U0001f601"]
    assert await stored(owner, [{"external_key": key} for key in keys], Task.external_key) == keys
    async with get_async_session(read_only=True) as session:
        for key in keys:
            found = await session.execute(select(Task.external_key).where(Task.external_key == key))
            assert found.scalars().all() == [key]
    with pytest.raises(IntegrityError):
        await stored(owner, [{"external_key": "x "}], Task.external_key)


async def test_characters_of_four_bytes_and_long_texts(manager: DatabaseManager) -> None:
    owner = await make_owner()
    long_text = "\U0001f600 \u00e4\r\n\t" * (70 * 1024 // 8)
    assert len(long_text.encode()) > 70 * 1024
    assert await stored(owner, [{"description": long_text}], Task.description) == [long_text]
    title = "\U0001f600" * 255
    assert await stored(owner, [{"title": title}], Task.title) == [title]


async def test_a_text_that_is_too_long_is_not_cut(manager: DatabaseManager) -> None:
    owner = await make_owner()
    with pytest.raises(DBAPIError, match=r"(?i)too long|ck_tasks_title_length"):  # SQLite by a check of ours
        await stored(owner, [{"title": "t" * 256}], Task.title)


async def test_uuids_and_enumerations_come_back(manager: DatabaseManager) -> None:
    owner, run = await make_owner(), uuid7()
    assert await stored(owner, [{"import_run_id": run}], Task.import_run_id) == [run]
    statuses = [{"status": status} for status in TaskStatus]
    assert await stored(owner, statuses, Task.status) == list(TaskStatus)
    assert await stored(owner, [{}], Task.status) == [TaskStatus.PENDING]
