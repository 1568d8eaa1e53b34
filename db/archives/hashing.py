"""A checksum of rows that each engine computes by itself, and that does not depend on their order.

PostgreSQL: the sum of ``hash_record_extended(row, 0)``, 64 bits a row; before version 14 of ``hashtextextended`` of the
row's text, which takes three times as long. Whatever hashes by something else than its bytes (enums by their number
in one database, numerics without their scale) goes in as text, and texts by their bytes. MySQL and MariaDB: the sum of
``CRC32``, 32 bits a row, over the columns, each behind its length, or behind whether it is NULL. SQLite: the sum of
Python's ``zlib.crc32`` over the quoted columns.
"""

import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol
from typing import cast as typed

from sqlalchemy import Column, ColumnElement, LargeBinary, Text, cast, func, literal_column
from sqlalchemy.ext.asyncio import AsyncSession

_EXACT = (
    "uuid",
    "text",
    "character",
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "date",
    "timestamp",
    "bytea",
    "jsonb",
)
"""Types of PostgreSQL whose hash is one of their content. (To that of ``jsonb``, as to ``=``, 1 is 1.0.)"""
_TEXTS = ("text", "character")
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


def _content(column: Column[Any], kind: str) -> ColumnElement[Any]:
    """Return what PostgreSQL hashes of a column: of texts their bytes, whatever their collation calls equal."""
    base = base_type(kind)
    if base not in _EXACT or "[]" in kind:
        return cast(column, Text())
    return column.collate("C") if base in _TEXTS else column


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
        exact = [_content(column, types.get(column.name, "")) for column in columns]
        return func.hash_record_extended(func.row(*exact), literal_column("0"))
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
