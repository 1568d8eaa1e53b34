"""Statements that are made once, in the driver's own words."""

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Integer, String, bindparam, text

from db.connection import DatabaseManager, get_async_session
from db.past_orm import DriverStatement, as_python
from db.types import UtcDateTime, UUIDType
from tests.databases.engines import ON_MARIADB

pytestmark = ON_MARIADB
KEY = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
AT = datetime(2026, 11, 30, 12, 30, 15, 123456, tzinfo=UTC)


async def test_values_are_made_ready_by_their_types_and_stand_in_their_places(manager: DatabaseManager) -> None:
    written = text("SELECT :number, CAST(:key AS uuid), CAST(:at AS datetime(6)), :word, '100 %', :number").bindparams(
        bindparam("word", type_=String()),
        bindparam("key", type_=UUIDType()),
        bindparam("at", type_=UtcDateTime()),
        bindparam("number", type_=Integer()),
    )
    dialect = manager.engine.dialect
    statement = DriverStatement.of(written, dialect)
    values = {"key": KEY, "at": AT, "word": "it's %s :key", "number": 7, "unknown": object()}
    async with get_async_session() as session:
        found = (await statement.execute(session, values)).one()
    number, key, at, word, hundred, again = tuple(found)
    assert (number, word, hundred, again) == (7, values["word"], "100 %", 7)
    assert as_python(UUIDType(), key, dialect) == KEY
    assert as_python(UtcDateTime(), at, dialect) == AT
    assert as_python(Integer(), number, dialect) == 7


async def test_it_tells_how_many_rows_it_has_changed_and_is_undone_with_its_session(manager: DatabaseManager) -> None:
    written = text("INSERT INTO users (id, username) VALUES (:id, :name)").bindparams(
        bindparam("id", type_=UUIDType()), bindparam("name", type_=String())
    )
    statement = DriverStatement.of(written, manager.engine.dialect)
    async with get_async_session() as session:
        assert (await statement.execute(session, {"id": KEY, "name": "ada"})).rowcount == 1
        await session.rollback()
    async with get_async_session() as session:
        count = (await session.execute(text("SELECT count(*) FROM users"))).scalar_one()
    assert count == 0
