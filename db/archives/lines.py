"""Rows as lines of JSON, for archives in files.

One object a line, columns by name: UUIDs and numerics as text, enums by the label that is stored, times in ISO 8601
with their offset, bytes in base 64, durations in seconds, JSON as it is (``db.archives.documents``), arrays as lists;
the same from every engine. PostgreSQL writes them by itself.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Double,
    Numeric,
    Table,
    Text,
    Time,
    and_,
    case,
    cast,
    false,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.documents import DEEPEST, TAKEN, TOO_DEEP, as_text, deep_member, document_columns, line_text
from db.archives.hashing import base_type, row_hash
from db.archives.reading import LineUnreadable, read_line
from db.archives.rows import AnySelect, Chosen, Proof, Shape, run_kept
from db.archives.values import JSON_NULL, writer_of


class NotKept(Exception):  # noqa: N818
    """A row holds what a file could not give back; the message is one line."""

    def __init__(self, table: Table, problem: str) -> None:
        super().__init__(f"{table.fullname}: a file could not give back a row ({problem}): archive to tables, or purge")


async def read_lines(session: AsyncSession, shape: Shape, chosen: Chosen) -> tuple[Proof, bytes]:
    """Return rows as lines, each with its end, and the proof of what the table holds of them.

    Args:
        session: any.
        shape: the table.
        chosen: the rows.

    Raises:
        NotKept: a row holds what its line could not give back.
    """
    if session.get_bind().dialect.name == "postgresql":
        return await _lines_of_postgresql(session, shape, chosen)
    dialect, columns = session.get_bind().dialect, shape.table.columns
    documents = document_columns(shape.table, dialect)
    plain = [column for column in columns if column.name not in documents]
    texts = [as_text(column, dialect) for column in documents.values()]
    hash_of = row_hash(session, columns, shape.types).label("holdfast_hash")
    query = select(*plain, *texts, hash_of).where(chosen.of(shape.table, dialect.name))
    rows = (await session.execute(query, chosen.values)).all()
    line_of = _Writer(shape.table, {column.name: writer_of(column.type) for column in plain}, list(documents))
    lines = [line_of(row) for row in rows]
    return Proof(len(rows), sum(int(row.holdfast_hash) for row in rows)), "".join(lines).encode()


_UNFIT = (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class _Writer:
    table: Table
    plain: dict[str, Callable[[Any], Any]]
    """Column -> what writes its values. They come first in a row."""
    documents: list[str]

    def __call__(self, row: Any) -> str:
        try:
            values = zip(self.plain.items(), row, strict=False)
            plain = _encode({name: None if value is None else write(value) for (name, write), value in values})
            documents = zip(self.documents, row[len(self.plain) :], strict=False)
            return ",".join([plain[:-1], *(f"{_encode(name)}:{line_text(text)}" for name, text in documents)]) + "}\n"
        except _UNFIT as error:
            raise NotKept(self.table, self._problem(row) or str(error)) from error

    def _problem(self, row: Any) -> str | None:
        writers = (self.plain | dict.fromkeys(self.documents, line_text)).items()
        for (name, write), value in zip(writers, row, strict=False):
            try:
                if value is not None:
                    write(value)
            except _UNFIT as error:
                return f"{name}: {error}"
        return None


async def _lines_of_postgresql(session: AsyncSession, shape: Shape, chosen: Chosen) -> tuple[Proof, bytes]:
    def build() -> AnySelect:
        return _query_of_lines(session, shape, chosen)

    count, checksum, lines, doubt = (await run_kept(session, shape, chosen, what="lines", build=build)).one()
    if (taken := (doubt or 0) - _FIRST_TAKEN) >= 0:
        raise NotKept(shape.table, f"{shape.names[taken]}: {TAKEN}")
    if doubt:
        _read_back(shape.table, lines.split("\n"), values=doubt == _SPECIAL)
    return Proof(count, int(checksum or 0)), f"{lines}\n".encode() if count else b""


def _query_of_lines(session: AsyncSession, shape: Shape, chosen: Chosen) -> AnySelect:
    """Return what counts rows, sums up their hashes, shows them as lines, and tells the greatest doubt of them."""
    kinds = [(column, shape.types.get(column.name, "")) for column in shape.table.columns]
    shown = [_shown(column, kind).label(column.name) for column, kind in kinds]
    hash_of = row_hash(session, shape.table.columns, shape.types).label("holdfast_hash")
    doubt = _doubt(kinds).label("holdfast_doubt")
    rows = select(*shown, hash_of, doubt).where(chosen.of(shape.table, "postgresql")).cte("due")
    record = select(*[rows.c[name] for name in shape.names]).correlate(rows).lateral("holdfast_record")
    line = cast(func.row_to_json(literal_column("holdfast_record")), Text())
    found: dict[str, ColumnElement[Any]] = {
        "count": func.count(),
        "checksum": func.sum(rows.c.holdfast_hash),
        "lines": func.string_agg(line, literal_column(r"E'\n'")),
        "doubt": func.max(rows.c.holdfast_doubt),
    }
    query = select(*[value.label(name) for name, value in found.items()])
    return query.select_from(rows.join(record, literal_column("true")))


_LONG, _SPECIAL, _FIRST_TAKEN = 1, 2, 3


def _doubt(kinds: Sequence[tuple[Column[Any], str]]) -> ColumnElement[Any]:
    """Return a row's greatest doubt, as one number for all of them: whether a document is what stands for JSON's null
    (``_FIRST_TAKEN`` and the number of its column), its line must be read back, or its levels counted; 0: none."""
    doubts = [(one, _FIRST_TAKEN + number) for number, pair in enumerate(kinds) for one in _taken(*pair)]
    for number, conditions in ((_SPECIAL, _special), (_LONG, _long)):
        doubts += [(or_(false(), *[one for pair in kinds for one in conditions(*pair)]), number)]
    return case(*[(condition, literal_column(f"{number}")) for condition, number in doubts], else_=literal_column("0"))


def _read_back(table: Table, lines: Iterable[str], *, values: bool) -> None:
    try:
        for line in lines:
            if (name := deep_member(line, DEEPEST + 1)) is not None:
                raise NotKept(table, f"{name}: {TOO_DEEP}")
            if values:
                read_line(table, line)
    except LineUnreadable as error:
        raise NotKept(table, error.problem or str(error)) from error


def _special(column: Column[Any], kind: str) -> Iterable[ColumnElement[bool]]:
    """Yield the condition that a line has to be read back, which costs too much for each: Python has no instant without
    an end or before Christ, no end of a day and no month in a duration."""
    base = base_type(kind)
    if base in {"date", "timestamp", "time"} and kind.endswith("[]"):
        yield column.is_not(None)
    elif base in {"date", "timestamp"}:
        yield column < literal_column(f"'0001-01-02'::{kind}")
        yield column > literal_column(f"'9999-12-30'::{kind}")
    elif base == "time":
        yield cast(column, Time()) == literal_column("'24:00'::time")  # with an offset it depends on the session's
    elif base == "interval":
        yield _has_months(column)


def _long(column: Column[Any], kind: str) -> Iterable[ColumnElement[bool]]:
    """Yield the condition that JSON may have too many levels, which costs too much to look for in each: one takes two
    bytes of a text, and more than three of packed ``jsonb``."""
    if kind in {"json", "jsonb"}:
        size = func.octet_length(cast(column, Text())) if kind == "json" else func.pg_column_size(column)
        yield size > literal_column(f"{2 * DEEPEST}")


_ANY_SPELLING = "".join(rf"({letter}|\\u00{ord(letter):02x})" for letter in next(iter(JSON_NULL)))


def _taken(column: Column[Any], kind: str) -> Iterable[ColumnElement[bool]]:
    """Yield the condition that a document is, or may be, what stands for JSON's null; what is quickly told is first."""
    if kind == "jsonb":
        is_as_long = func.pg_column_size(column).between(literal_column("25"), literal_column("40"))
        yield and_(is_as_long, column.op("=")(literal_column(f"'{json.dumps(JSON_NULL)}'::jsonb")))
    elif kind == "json":
        text = cast(column, Text())
        may_be = or_(*[func.strpos(text, literal_column(f"'{part}'")) > 0 for part in (next(iter(JSON_NULL)), r"\u00")])
        yield and_(may_be, text.op("~*")(literal_column(rf"""'^\s*\{{\s*"{_ANY_SPELLING}"\s*:'""")))


def _has_months(column: Column[Any]) -> ColumnElement[bool]:
    return func.date_trunc("month", column) != literal_column("interval '0'")


def _shown(column: Column[Any], kind: str) -> ColumnElement[Any]:
    base = base_type(kind)
    if base == "numeric" and "[]" not in kind:
        return cast(column, Text())
    if kind == "real":
        return cast(column, Double())  # with all the digits that Python sees
    if kind == "bytea":
        return func.encode(column, "base64")
    if base == "interval":
        return _shown_interval(column)
    return _shown_json(column, kind) if kind in {"json", "jsonb"} else column


def _shown_interval(column: Column[Any]) -> ColumnElement[Any]:
    seconds = cast(cast(func.extract("epoch", column), Numeric()), Text())
    return case((_has_months(column), cast(column, Text())), else_=seconds)


def _shown_json(column: Column[Any], kind: str) -> ColumnElement[Any]:
    is_null = getattr(func, f"{kind}_typeof")(column) == "null"
    mark: ColumnElement[Any] = literal_column(f"'{json.dumps(JSON_NULL)}'::{kind}")
    shown: ColumnElement[Any] = column
    if kind == "json":
        # Its line breaks stand between its tokens, and all else of its text is kept.
        shown = cast(func.translate(cast(column, Text()), literal_column(r"E'\n\r'"), "  "), JSON())
    return case((is_null, mark), else_=shown)
