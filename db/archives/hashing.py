"""A checksum of rows that each engine computes by itself, and that does not depend on their order.

PostgreSQL: the sum of 64 bits a row, in which the columns' hashes are XORed, each by the function of its type with the
column's number as its seed; what has none comes as one record (``hash_record_extended``; all by that takes an eighth
longer). Before version 14 the sum of ``hashtextextended`` of the row's text, which takes three times as long. Whatever
hashes by something else than its bytes (enums by their number in one database, numerics without their scale, the two
halves of a bigint as one) goes in as text, and texts by their bytes. MySQL and MariaDB: the sum of ``CRC32``, 32 bits
a row, over the columns, each behind its length, or behind whether it is NULL. SQLite: the sum of Python's
``zlib.crc32`` over the quoted columns.
"""

import re
import zlib
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any, Protocol
from typing import cast as typed

from sqlalchemy import Column, ColumnElement, Integer, LargeBinary, Text, cast, func, literal_column, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession

_HASHES = {
    "uuid": "uuid_hash_extended",
    "text": "hashtextextended",
    "character": "hashtextextended",
    "jsonb": "jsonb_hash_extended",
}
"""Types of PostgreSQL whose hash is one of their content, each with its function. (To ``jsonb``'s, 1 is 1.0.)"""
_IN_RECORD = ("boolean", "date", "timestamp", "bytea")
"""Such types whose function cannot be called."""
_RECORD_HASH_SINCE = (14, 0)
_END_OF_WORD = re.compile(r"[ (\[]")
_PLAIN = (
    "uuid",
    "tinyint",
    "smallint",
    "mediumint",
    "int",
    "bigint",
    "decimal",
    "float",
    "double",
    "date",
    "datetime",
    "timestamp",
    "time",
    "year",
)
"""Types of MySQL and MariaDB whose values hold no comma, or are all of one length."""


def base_type(kind: str) -> str:
    """Return a type's own word: ``timestamp`` of ``timestamp(3) with time zone[]``.

    Args:
        kind: in the database's own words, in which whatever else begins so is another type (an enum ``timeframe``).
    """
    return _END_OF_WORD.split(kind, maxsplit=1)[0]


def _hash_on_postgresql(columns: Iterable[Column[Any]], types: Mapping[str, str]) -> ColumnElement[Any]:
    hashes, record = list[ColumnElement[Any]](), list[Column[Any]]()
    for number, column in enumerate(columns, 1):
        kind = types.get(column.name, "")
        base, seed = "" if "[]" in kind else base_type(kind), literal_column(f"{number}", Integer())
        if base in _IN_RECORD:
            record.append(column)
            continue
        function = _HASHES.get(base, "hashtextextended")
        value: ColumnElement[Any] = column if base in _HASHES else cast(column, Text())
        if function == "hashtextextended":  # of their bytes, whatever their collation calls equal
            value = type_coerce(value, Text()).collate("C")
        hashes.append(func.coalesce(getattr(func, function)(value, seed), seed))
    if record:
        hashes.append(func.hash_record_extended(func.row(*record), literal_column("0")))
    return reduce(lambda one, other: one.op("#")(other), hashes)


def row_hash(session: AsyncSession, columns: Iterable[Column[Any]], types: Mapping[str, str]) -> ColumnElement[Any]:
    """Return the hash of a row's columns.

    Args:
        session: of the engine that will compute it; on SQLite after ``prepare``.
        columns: of the table or of its archive, in the same order.
        types: column -> type, in the database's own words.
    """
    dialect = session.get_bind().dialect
    if dialect.name == "postgresql":
        if (dialect.server_version_info or _RECORD_HASH_SINCE) < _RECORD_HASH_SINCE:
            return func.hashtextextended(cast(func.row(*columns), Text()), literal_column("0"))
        return _hash_on_postgresql(columns, types)
    if dialect.name == "sqlite":
        first, *others = [func.quote(column) for column in columns]
        joined: ColumnElement[Any] = first
        for one in others:
            joined = joined.op("|| ',' ||")(one)
        return func.holdfast_crc32(cast(joined, LargeBinary()))
    parts: list[ColumnElement[Any]] = []
    for column in columns:
        is_plain = base_type(types.get(column.name, "")) in _PLAIN
        # No two rows have the same text, for concat_ws leaves out what is NULL. Quoted columns take twice the time.
        parts.append(column.is_(None) if is_plain else func.coalesce(func.length(column), literal_column("-1")))
        parts.append(cast(column, LargeBinary()))  # the columns have collations that do not mix
    return func.crc32(func.concat_ws(literal_column("','"), *parts))


class _SqliteConnection(Protocol):
    async def create_function(self, name: str, parameters: int, function: Any, deterministic: bool) -> None: ...


async def prepare(session: AsyncSession) -> None:
    """Give an SQLite connection the function that it lacks; call it once in each transaction."""
    if session.get_bind().dialect.name != "sqlite":
        return
    connection = await (await session.connection()).get_raw_connection()
    driver = typed("_SqliteConnection", connection.driver_connection)
    await driver.create_function("holdfast_crc32", 1, zlib.crc32, deterministic=True)
