"""The fast way into a table: every type and every text comes back as through any other way, on each engine."""

import asyncio
import enum
import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    Enum,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    String,
    Table,
    Time,
    Uuid,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError

from db.connection import DatabaseManager
from db.copy import RowsDiffer, copy_rows
from db.errors import is_unique_violation, is_unstorable
from db.models import Task, User
from db.settings import DatabaseSettings
from db.types import UtcDateTime, json_column_type, long_text_type
from tests.databases.sessions import end, own_id
from tests.servers import PostgresServer


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


metadata = MetaData()
KINDS = Table(
    "of every 100% kind",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("small", SmallInteger),
    Column("big", BigInteger),
    Column("number", Numeric(20, 6)),
    Column("real", Float(53)),
    Column("flag", Boolean),
    Column("order", String(200)),
    Column("long text", long_text_type()),
    Column("octets", LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")),
    Column("day", Date),
    Column("hour", Time().with_variant(mysql.TIME(fsp=6), "mysql", "mariadb")),
    Column("instant", UtcDateTime()),
    Column("uuid", Uuid()),
    Column("uuid_text", Uuid(as_uuid=False)),
    Column("colour", Enum(Colour, native_enum=False)),
    Column("native", Enum(Colour, name="native_colour")),
    Column("document", json_column_type()),
    Column("json", JSON()),
    Column("in_python", String(20), default="scalar"),
    Column("called", Uuid(), default=uuid4),
    Column("in_sql", String(20), server_default="server's"),
)
ONE = {
    "id": 1,
    "small": -32768,
    "big": 2**63 - 1,
    "number": Decimal("-123456789.567891"),
    "real": 0.1,
    "flag": True,
    "order": "Zo\u00eb \U0001f989 ",
    "long text": "\u20ac" * 100_000,
    "octets": bytes(range(256)),
    "day": date(2024, 2, 29),
    "hour": time(23, 59, 59, 999999),
    "instant": datetime(2026, 3, 29, 2, 30, 0, 123456, timezone(timedelta(hours=5, minutes=30))),
    "uuid": UUID("01a1fbc6-4e8c-7247-b0b0-10a34ca5dcf2"),
    "uuid_text": "01a1fbc6-4e8c-7247-b0b0-10a34ca5dcf2",
    "colour": Colour.GREEN,
    "native": Colour.RED,
    "document": {"a": [1, None, "\u00e4'\"\\", {"b": 1.5}]},
    "json": ["x", {"y": None}],
}
FILLED = {"in_python", "called", "in_sql"}


@pytest.fixture(scope="module")
def urls(
    migrated_sqlite: object, migrated_postgresql: str, migrated_mariadb: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    del migrated_sqlite
    file = tmp_path_factory.mktemp("copy") / "holdfast.db"
    return {"sqlite": f"sqlite:///{file}", "postgresql": migrated_postgresql, "mariadb": migrated_mariadb}


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
async def place(request: pytest.FixtureRequest, urls: dict[str, str]) -> AsyncIterator[DatabaseManager]:
    """A database with the table of every kind."""
    made = DatabaseManager(DatabaseSettings(database_url=urls[request.param], _env_file=None))
    async with made.get_connection() as connection:
        await connection.run_sync(metadata.create_all)
    yield made
    async with made.get_connection() as connection:
        await connection.run_sync(metadata.drop_all)
    await made.close()


async def stored(place: DatabaseManager) -> list[dict[str, Any]]:
    async with place.session(read_only=True) as session:
        rows = await session.execute(select(KINDS).order_by(KINDS.c.id))
        return [dict(row) for row in rows.mappings()]


def without_filled(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in FILLED}


async def test_every_type_comes_back_as_by_an_ordinary_insert(place: DatabaseManager) -> None:
    nothing = dict.fromkeys(ONE) | {"id": 2}
    async with place.session() as session:
        assert await copy_rows(session, KINDS, [ONE, nothing]) == 2
        await session.execute(insert(KINDS), [{**ONE, "id": 3}])
    copied, empty, inserted = await stored(place)
    assert without_filled(copied) == {**without_filled(inserted), "id": 1}
    assert without_filled(copied) == {**ONE, "instant": ONE["instant"].astimezone(UTC)}  # type: ignore[attr-defined]
    assert copied["instant"].tzinfo is UTC
    assert (copied["in_python"], copied["in_sql"]) == ("scalar", "server's")
    assert len({row["called"] for row in (copied, empty, inserted)}) == 3
    assert {name: empty[name] for name in ONE if name not in {"document", "json"}} == {
        name: nothing[name] for name in ONE if name not in {"document", "json"}
    }


async def test_rows_are_read_as_they_are_sent_and_go_through_models(manager: DatabaseManager) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        for number in range(12_000):
            yield {"username": f"user {number}", "is_active": number % 2 == 0}

    async with manager.session() as session:
        assert await copy_rows(session, User, rows()) == 12_000
    async with manager.session(read_only=True) as session:
        active = select(func.count()).select_from(User).where(User.is_active)
        assert (await session.execute(active)).scalar_one() == 6000
        user = (await session.execute(select(User).where(User.username == "user 7"))).scalar_one()
    assert user.id.version == 7
    assert user.created_at.tzinfo is not None


async def test_nothing_is_nothing(manager: DatabaseManager) -> None:
    async with manager.session() as session:
        assert await copy_rows(session, User, []) == 0


async def test_it_is_part_of_the_transaction(manager: DatabaseManager) -> None:
    class Mishap(Exception):  # noqa: N818
        pass

    async def load() -> None:
        async with manager.session() as session:
            owner = User(username="ada")
            session.add(owner)  # not flushed yet, and referred to
            await session.flush()
            await copy_rows(session, Task, [{"title": "a", "user_id": owner.id}, {"title": "b", "user_id": owner.id}])
            assert (await session.execute(select(func.count()).select_from(Task))).scalar_one() == 2
            raise Mishap

    async def first_of_all() -> None:
        async with manager.session() as session:
            await copy_rows(session, User, [{"username": "eve"}])
            raise Mishap

    for failing in (load, first_of_all):
        with pytest.raises(Mishap):
            await failing()
    async with manager.session(read_only=True) as session:
        assert (await session.execute(select(func.count()).select_from(User))).scalar_one() == 0


async def copy_users(manager: DatabaseManager, *rows: dict[str, Any]) -> None:
    async with manager.session() as session:
        await copy_rows(session, User, rows)


async def test_a_duplicate_is_told_as_any_other(manager: DatabaseManager) -> None:
    with pytest.raises(IntegrityError) as caught:
        await copy_users(manager, {"username": "ada"}, {"username": "ada"})
    assert is_unique_violation(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"username": "x", "nothing": 1}, "users has no column nothing: name columns of the table"),
        ({'username"; DROP TABLE users; --': 1}, "users has no column username"),
    ],
)
async def test_an_unknown_column_is_refused(manager: DatabaseManager, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        await copy_users(manager, row)


async def test_a_row_with_other_columns_is_named(manager: DatabaseManager) -> None:
    with pytest.raises(RowsDiffer, match="row 2 for users differs from the first one in email: give all rows the same"):
        await copy_users(manager, {"username": "a", "email": "a@b"}, {"username": "b"})
    await copy_users(manager, {"username": "a"})


async def test_a_value_of_the_wrong_type_is_refused(place: DatabaseManager) -> None:
    async def load(**values: Any) -> None:
        async with place.session() as session:
            await copy_rows(session, KINDS, [{"id": 1}] if not values else [{"id": 1, **values}])

    for wrong in ({"instant": datetime(2026, 1, 1)}, {"flag": "maybe"}, {"colour": 7}):  # noqa: DTZ001
        with pytest.raises(StatementError) as caught:
            await load(**wrong)
        assert is_unstorable(caught.value)
    await load()
    assert len(await stored(place)) == 1


@examples(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(), min_size=1, max_size=20), octets=st.binary(), real=st.floats(allow_nan=False))
async def test_any_text_comes_back_exactly_or_is_refused(
    place: DatabaseManager, texts: list[str], octets: bytes, real: float
) -> None:
    rows = [{"id": n, "long text": one, "document": {"k": one}, "octets": octets} for n, one in enumerate(texts)]
    rows = [{**row, "real": None if math.isinf(real) else real} for row in rows]
    async with place.session() as session:
        await session.execute(KINDS.delete())
    try:
        async with place.session() as session:
            await copy_rows(session, KINDS, rows)
    except StatementError:
        assert any("\0" in one or any("\ud800" <= letter <= "\udfff" for letter in one) for one in texts)
        assert await stored(place) == []
        return
    back = [{name: row[name] for name in rows[0]} for row in await stored(place)]
    assert back == rows


HOSTILE = ["'; DROP TABLE users; --", "\\", "\\'", "%s %(a)s %%", ":name ?", "\\N", "\t\n\r", "$1", "\ufeff", " "]


async def test_sql_and_escapes_in_a_value_stay_there(place: DatabaseManager) -> None:
    async with place.session() as session:
        await copy_rows(session, KINDS, [{"id": n, "order": one} for n, one in enumerate(HOSTILE)])
    assert [row["order"] for row in await stored(place)] == HOSTILE


async def test_a_cancelled_load_leaves_nothing_and_the_pool_whole(manager: DatabaseManager) -> None:
    begun = asyncio.Event()

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(200_000):
            if number == 6000:
                begun.set()
            yield {"username": f"user {number}"}

    async def load() -> None:
        async with manager.session() as session:
            await copy_rows(session, User, rows())

    task = asyncio.create_task(load())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30), manager.session() as session:
        assert (await session.execute(select(func.count()).select_from(User))).scalar_one() == 0
    assert manager.pool_figures().checked_out == 0


async def test_postgresql_a_dead_connection_is_replaced(
    migrated_postgresql: str, postgres_server: PostgresServer
) -> None:
    manager = DatabaseManager(DatabaseSettings(database_url=migrated_postgresql, _env_file=None))
    async with manager.session() as session:
        await session.execute(text("DELETE FROM tasks"))
        await session.execute(text("DELETE FROM users"))
        process = await own_id(session)
    end(postgres_server, process)
    await copy_users(manager, {"username": "ada"})
    broken = manager.session()
    session = await broken.__aenter__()
    end(postgres_server, await own_id(session))
    with pytest.raises(DBAPIError) as caught:
        await copy_rows(session, User, [{"username": "eve"}])
    assert caught.value.connection_invalidated
    await broken.__aexit__(DBAPIError, caught.value, None)
    await manager.close()
