"""What comes back from files is what was archived, whatever its type; what could not is not deleted."""

import enum
import json
from collections.abc import AsyncIterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    JSON,
    Column,
    Date,
    Enum,
    Float,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    PickleType,
    Table,
    Text,
    bindparam,
    delete,
    insert,
    text,
    update,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine

from db.archive_tables import archive_table
from db.archives.catalog import Catalog
from db.archives.documents import line_text, read_documents, same_json
from db.archives.reading import read_line
from db.archives.values import no_way_back, read_value, same_value, writer_of
from db.base import SoftDeleteModel
from db.connection import DatabaseManager, get_async_session
from db.models import ArchivePart
from db.types import NAMING_CONVENTION, SmartJSON
from holdfast.ids import uuid7
from jobs.archive_deleted.part_files import write_part
from jobs.outcomes import JobFailed
from jobs.settings import JobSettings
from tests.archive.kinds import KINDS, Way
from tests.archive.returns import archive, erase, restore
from tests.archive.runs import LONG_AGO, count
from tests.databases.engines import NOT_ON_MARIADB, ON_POSTGRESQL

OF_ALL, OF_POSTGRESQL, REFUSED = (MetaData(naming_convention=NAMING_CONVENTION) for _ in range(3))


class Sealed(TypeDecorator[str]):
    """Another text in the database than in Python."""

    impl = Text
    cache_ok = True

    def process_result_value(self, value: str | None, dialect: object) -> str | None:
        """Break the seal."""
        del dialect
        return value and value[::-1]


class Sample(SoftDeleteModel):
    """One column of each type that every engine has."""

    __tablename__ = "samples"
    metadata = OF_ALL

    way: Mapped[Way | None] = mapped_column(Enum(Way, native_enum=False, length=10))
    took: Mapped[timedelta | None]
    number: Mapped[float | None]
    amount: Mapped[Decimal | None] = mapped_column(Numeric(30, 10))
    at: Mapped[datetime | None]
    hour: Mapped[time | None]
    content: Mapped[bytes | None]
    body: Mapped[str | None] = mapped_column(Text())
    any_json: Mapped[Any] = mapped_column(JSON(), nullable=True)
    smart_json: Mapped[dict[str, Any] | None] = mapped_column(SmartJSON())


class Special(SoftDeleteModel):
    """What PostgreSQL alone has."""

    __tablename__ = "specials"
    metadata = OF_POSTGRESQL

    ids: Mapped[Any] = mapped_column(postgresql.ARRAY(postgresql.UUID()), nullable=True)
    days: Mapped[Any] = mapped_column(postgresql.ARRAY(Date()), nullable=True)
    amounts: Mapped[Any] = mapped_column(postgresql.ARRAY(Numeric()), nullable=True)
    numbers: Mapped[Any] = mapped_column(postgresql.ARRAY(Float()), nullable=True)
    words: Mapped[Any] = mapped_column(postgresql.ARRAY(Text()), nullable=True)
    wide: Mapped[Decimal | None] = mapped_column(Numeric())
    bits: Mapped[Any] = mapped_column(postgresql.BIT(5), nullable=True)
    short: Mapped[float | None] = mapped_column(postgresql.REAL())
    binary_json: Mapped[Any] = mapped_column(postgresql.JSONB(), nullable=True)


class Unfit(SoftDeleteModel):
    """Refused by the type of one column."""

    __tablename__ = "unfits"
    metadata = REFUSED

    sealed: Mapped[str | None] = mapped_column(Sealed())


SAMPLES, SPECIALS, UNFITS = (cast("Table", model.__table__) for model in (Sample, Special, Unfit))
for _table in (SAMPLES, SPECIALS, UNFITS):
    archive_table(_table)
PARTS = cast("Table", ArchivePart.__table__)
ROW = {"is_deleted": True, "deleted_at": LONG_AGO}


@pytest.fixture
async def dialect(manager: DatabaseManager) -> AsyncIterator[str]:
    """The engine's name, with the tables that it can have."""
    name = manager.engine.dialect.name
    made = (OF_ALL, OF_POSTGRESQL, REFUSED) if name == "postgresql" else (OF_ALL, REFUSED)
    async with manager.engine.begin() as connection:
        for metadata in made:
            await connection.run_sync(metadata.create_all)
    try:
        yield name
    finally:
        async with manager.engine.begin() as connection:
            for metadata in made:
                await connection.run_sync(metadata.drop_all)


async def put(table: Table, **values: Any) -> UUID:
    """Make a row that is due; ``values`` are those of Python, or SQL where they are ``text``."""
    key = uuid7()
    async with get_async_session() as session:
        await session.execute(insert(table).values(id=key, **ROW))
        await session.execute(update(table).where(table.c.id == key).values(values))
    return key


async def stored(table: Table, key: UUID, column: str) -> str:
    """A column's value in the engine's own words; the white space of JSON does not count."""
    async with get_async_session(read_only=True) as session:
        word = f"CAST({column} AS text)" if session.get_bind().dialect.name == "postgresql" else column
        query = text(f"SELECT {word} FROM {table.name} WHERE id = :id")
        value = (await session.execute(query.bindparams(bindparam("id", key, table.c.id.type)))).scalar_one()
        return repr("".join(str(value).split()) if "json" in column else value)


async def go_and_come_back(settings: JobSettings, table: Table, metadata: MetaData, values: dict[str, Any]) -> None:
    """Archive a row to files and restore it: it must be the same in the engine's own words."""
    catalog, (column,) = Catalog.of(metadata), values
    key = await put(table, **values)
    before = await stored(table, key, column)
    assert (await archive(settings, catalog=catalog, destination="files")).moved == {table.name: 1}
    report = await restore(settings, key, table=table.name, catalog=catalog)
    assert (report.restored, report.refused) == ({table.name: 1}, ())
    assert await stored(table, key, column) == before


VALUES: dict[str, dict[str, Any]] = {
    "an enum whose values are names": {"way": Way.UP},
    "a duration": {"took": timedelta(days=12_000, seconds=1)},
    "a short duration": {"took": timedelta(seconds=-7)},
    "a tiny number": {"number": 5e-324},
    "many digits": {"amount": Decimal("12345678901.0123456789")},
    "the first instant": {"at": datetime.fromisoformat("1000-01-01T00:00:00+00:00")},
    "a time": {"hour": time(23, 59, 59, 999999)},
    "bytes": {"content": bytes(range(256)) * 3},
    "a text like a mark": {"body": 'infinity" in 44 BC"\u2028\n"24:00:00'},
    "a word": {"body": "infinity"},
    "JSON with line breaks": {"any_json": text('\'{\r\n "a": "x\\\\ny"}\'')},
    "JSON's null": {"any_json": text("'null'")},
    "JSON's null where it should not be": {"smart_json": text("'null'")},
    "SQL's null": {"any_json": text("NULL")},
    "JSON with many digits": {"any_json": text('\'{"z": 0.12345678901234567890123, "a": 1.10}\'')},
    "a document with many digits": {"smart_json": text('\'{"a": 0.12345678901234567890123, "b": [1e30]}\'')},
    "JSON that is a number": {"any_json": text("'5'")},
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.usefixtures("dialect")
async def test_values_come_back_from_files_exactly(name: str, job_settings: JobSettings) -> None:
    await go_and_come_back(job_settings, SAMPLES, OF_ALL, VALUES[name])


OF_POSTGRESQL_ALONE: dict[str, dict[str, Any]] = {
    "a long duration": {"took": timedelta(days=99_000_000, microseconds=-1)},
    "an exact duration": {"took": timedelta(days=-1, microseconds=1)},
    "no number": {"number": float("nan")},
    "no end": {"number": float("-inf")},
    "no amount": {"amount": Decimal("NaN")},
    "identifiers": {"ids": [UUID(int=5), None]},
    "days": {"days": [date(2020, 1, 31)]},
    "amounts": {"amounts": [Decimal("1.10"), Decimal("12345678901234567890.123456789"), Decimal(10)]},
    "numbers": {"numbers": [[0.1, float("nan")], [5e-324, float("inf")]]},
    "words": {"words": ["a", "\\N", "", None]},
    "a boundless amount": {"wide": text("'Infinity'")},
    "a single float": {"short": 0.1},
    "bits": {"bits": text("'01010'")},
    "binary JSON": {"binary_json": text('\'{"a": 1e400, "b": 1.10}\'')},
    "binary JSON's null": {"binary_json": text("'null'")},
}


@ON_POSTGRESQL
@pytest.mark.usefixtures("dialect")
@pytest.mark.parametrize("name", OF_POSTGRESQL_ALONE)
async def test_values_of_postgresql_come_back_from_files_exactly(name: str, job_settings: JobSettings) -> None:
    values = OF_POSTGRESQL_ALONE[name]
    is_of_all = next(iter(values)) in SAMPLES.c
    table, metadata = (SAMPLES, OF_ALL) if is_of_all else (SPECIALS, OF_POSTGRESQL)
    await go_and_come_back(job_settings, table, metadata, values)


SPECIAL = {
    "postgresql": [
        ("at", "'infinity'"),
        ("at", "'-infinity'"),
        ("at", "'0044-03-15 BC'"),
        ("at", "'10000-01-01'"),
        ("hour", "'24:00:00'"),
        ("took", "'1 month 3 days'"),
        ("took", "'-1 year'"),
    ],
    "sqlite": [("number", "'none'"), ("body", "x'ff'"), ("any_json", "'{'"), ("any_json", "9e999")],
}


@NOT_ON_MARIADB
async def test_a_value_that_files_could_not_give_back_is_told_and_stays(
    dialect: str, job_settings: JobSettings
) -> None:
    for column, value in SPECIAL[dialect]:
        await put(SAMPLES)
        await put(SAMPLES, **{column: text(value)})
        with pytest.raises(JobFailed, match=rf"^samples: .*{column}: .*: archive to tables, or purge") as caught:
            await archive(job_settings, catalog=Catalog.of(OF_ALL), destination="files")
        assert (caught.value.code, await count(SAMPLES), await count(PARTS)) == ("unreadable_value", 2, 0)
        assert (await archive(job_settings, catalog=Catalog.of(OF_ALL))).moved == {"samples": 2}


@pytest.mark.usefixtures("dialect")
async def test_a_type_that_files_could_not_give_back_is_refused_before_the_first_row(job_settings: JobSettings) -> None:
    await put(UNFITS)
    catalog = Catalog.of(REFUSED)
    with pytest.raises(JobFailed, match=r"unfits.sealed: files could not .* \(Sealed changes its values") as caught:
        await archive(job_settings, catalog=catalog, destination="files")
    assert (caught.value.code, await count(UNFITS)) == ("schema_drift", 1)
    assert (await archive(job_settings, catalog=catalog, destination="purge")).moved == {"unfits": 1}


@pytest.mark.usefixtures("dialect")
async def test_a_line_that_cannot_be_read_is_in_nobodys_way(job_settings: JobSettings) -> None:
    catalog = Catalog.of(OF_ALL)
    first, second, other = [await put(SAMPLES) for _ in range(3)]
    report = await archive(job_settings, catalog=catalog, destination="files")
    folder = job_settings.archives_dir / str(report.folder).rsplit("/", 1)[-1]
    damaged = "".join(
        f'{{"id":"{key}","number":{number}}}\n' for key, number in ((first, 1), (second, 2), (other, "[]"))
    )
    part = write_part(folder, "samples-000001.written-before.ndjson.zst", damaged.encode())
    async with get_async_session() as session:
        values = {"file": part.name, "rows": part.rows, "bytes": part.bytes, "sha256": part.sha256}
        await session.execute(update(ArchivePart).values(values))
    assert (await restore(job_settings, first, table="samples", catalog=catalog)).restored == {"samples": 1}
    assert (await erase(job_settings, second, table="samples", catalog=catalog)).erased == {"samples": 1}
    with pytest.raises(JobFailed, match=r"ndjson.zst: a line is no row of samples \(number: ") as caught:
        await restore(job_settings, other, table="samples", catalog=catalog)
    assert caught.value.code == "part_unreadable"
    async with get_async_session() as session:
        await session.execute(delete(SAMPLES))


@given(st.data())
def test_lines_of_every_type_come_back(data: st.DataObject) -> None:
    kind, values = data.draw(st.sampled_from(KINDS))
    value = data.draw(values)
    assert no_way_back(kind) is None
    assert read_value(kind, json.loads(json.dumps(writer_of(kind)(value)))) == value


@given(st.floats() | st.decimals(allow_nan=False))
def test_numbers_that_are_none_come_back(value: float | Decimal) -> None:
    kind: TypeEngine[Any] = Float() if isinstance(value, float) else Numeric()
    assert same_value(read_value(kind, json.loads(json.dumps(writer_of(kind)(value)))), value)


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_DIGITS = st.decimals(allow_nan=False, allow_infinity=False)


@given(st.recursive(_LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), _DIGITS)
def test_json_comes_back_to_its_last_digit(value: object, number: Decimal) -> None:
    text = f"[\n{json.dumps(value)},\r\n{number:f}]"
    (back,) = read_documents(f'{{"a":{line_text(text)}}}', {"a"}).values()
    assert same_json(back, text)


@pytest.mark.parametrize(("text", "other"), [("1.0000000000000000000001", "1"), ("null", None), ("{}", "[]")])
def test_json_that_is_not_the_same(text: str, other: str | None) -> None:
    assert same_json(text, text)
    assert not same_json(text, other)


def test_lines_of_an_older_version_are_read() -> None:
    """SQLite and MariaDB wrote an enum's value, PostgreSQL a duration's number, and JSON's null was SQL's."""
    table = Table("old", MetaData(), Column("way", Enum(Plain)), Column("took", Interval()), Column("any_json", JSON()))
    for way in ("up", "UP"):
        line = f'{{"way":"{way}","took":-86399.999999,"any_json":null}}'
        values = {"way": Plain.UP, "took": timedelta(days=-1, microseconds=1), "any_json": None}
        assert read_line(table, line) == values


class Plain(enum.Enum):
    """Its value is no name."""

    UP = "up"


@pytest.mark.parametrize(
    "kind",
    [
        postgresql.INET(),
        postgresql.INT4RANGE(),
        postgresql.TSVECTOR(),
        postgresql.HSTORE(),
        postgresql.MONEY(),
        postgresql.ARRAY(LargeBinary()),
        postgresql.ARRAY(JSON()),
        postgresql.ARRAY(postgresql.INET()),
        postgresql.ARRAY(Sealed()),
        mysql.SET("a", "b"),
        mysql.BIT(),
        PickleType(),
        NullType(),
    ],
    ids=repr,
)
def test_types_that_files_could_not_give_back(kind: TypeEngine[Any]) -> None:
    assert no_way_back(kind)


def test_types_that_files_give_back() -> None:
    kinds: list[TypeEngine[Any]] = [column.type for table in (SAMPLES, SPECIALS) for column in table.columns]
    kinds += [mysql.YEAR(), mysql.TINYINT(), mysql.LONGTEXT(), mysql.ENUM("a"), postgresql.ENUM("a", name="a")]
    kinds += [postgresql.INTERVAL(), postgresql.CITEXT(), postgresql.OID(), postgresql.ARRAY(Enum(Way))]
    assert [no_way_back(kind) for kind in kinds] == [None] * len(kinds)
