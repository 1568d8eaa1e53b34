"""Rows as lines of JSON, for archives in files.

One object a line, columns by name: UUIDs and numerics as text, enums by the label that is stored, times in ISO 8601
with their offset, bytes in base 64, durations in seconds, JSON as it is; the same from every engine. PostgreSQL writes
them by itself.
"""

import json
from collections.abc import Callable
from typing import Any

from sqlalchemy import Column, ColumnElement, Text, cast, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.hashing import row_hash
from db.archives.rows import Chosen, Proof, Shape
from db.archives.values import writer_of


async def read_lines(session: AsyncSession, shape: Shape, chosen: Chosen) -> tuple[Proof, bytes]:
    """Return rows as lines, each with its end, and the proof of what the table holds of them.

    Args:
        session: any.
        shape: the table.
        chosen: the rows.
    """
    if session.get_bind().dialect.name == "postgresql":
        return await _lines_of_postgresql(session, shape, chosen)
    columns = list(shape.table.columns)
    hash_of = row_hash(session, columns, shape.types).label("holdfast_hash")
    query = select(*columns, hash_of).where(chosen.of(shape.table, session.get_bind().dialect.name))
    rows = (await session.execute(query, chosen.values)).all()
    writers = [(column.name, writer_of(column.type)) for column in columns]
    lines = [_line(writers, row) for row in rows]
    return Proof(len(rows), sum(int(row.holdfast_hash) for row in rows)), "".join(lines).encode()


def _line(writers: list[tuple[str, Callable[[Any], Any]]], row: Any) -> str:
    values = {
        name: None if value is None else write(value) for (name, write), value in zip(writers, row[:-1], strict=True)
    }
    return f"{json.dumps(values, ensure_ascii=False, separators=(',', ':'))}\n"


async def _lines_of_postgresql(session: AsyncSession, shape: Shape, chosen: Chosen) -> tuple[Proof, bytes]:
    shown = [_shown(column, shape.types.get(column.name, "")).label(column.name) for column in shape.table.columns]
    hash_of = row_hash(session, shape.table.columns, shape.types).label("holdfast_hash")
    rows = select(*shown, hash_of).where(chosen.of(shape.table, "postgresql")).cte("due")
    record = select(*[rows.c[name] for name in shape.names]).correlate(rows).lateral("record")
    line = cast(func.row_to_json(literal_column("record")), Text())
    query = select(func.count(), func.sum(rows.c.holdfast_hash), func.string_agg(line, literal_column(r"E'\n'")))
    joined = rows.join(record, literal_column("true"))
    count, checksum, lines = (await session.execute(query.select_from(joined), chosen.values)).one()
    return Proof(count, int(checksum or 0)), f"{lines}\n".encode() if count else b""


def _shown(column: Column[Any], kind: str) -> ColumnElement[Any]:
    if kind.startswith("numeric"):
        return cast(column, Text())
    if kind == "bytea":
        return func.encode(column, "base64")
    if kind.startswith("interval"):
        return func.extract("epoch", column)
    return column
