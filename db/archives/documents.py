"""JSON columns in the lines of files: to the last digit, and JSON's null apart from SQL's.

In a line SQL's NULL is ``null``, and JSON's is ``JSON_NULL``.
"""

import json
import re
from decimal import Decimal
from typing import Any, NoReturn

from sqlalchemy import JSON, Column, ColumnElement, Dialect, Table, Text, cast, type_coerce
from sqlalchemy.types import TypeDecorator

from db.archives.values import JSON_NULL, JsonNumber, load_json, stored_type

DEEPEST = 200
"""Levels of JSON that a file takes: Python reads less than 1,000, and the fewer the more calls it is in."""
TOO_DEEP = f"it has more than {DEEPEST} levels"
TAKEN = f"{json.dumps(JSON_NULL)} stands for JSON's null in files"
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]')
_NULL_TEXT = json.dumps(JSON_NULL, separators=(",", ":"))
_encode = json.JSONEncoder(ensure_ascii=False).encode

_with_digits = json.JSONDecoder(parse_float=Decimal, parse_int=Decimal).decode


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


_checked = json.JSONDecoder(parse_int=str, parse_constant=_refuse).decode  # of however many digits


class WrittenJson(TypeDecorator[str]):
    """JSON as text, into a column of JSON."""

    impl = JSON
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> None:
        """Return nothing that would write it again."""
        del dialect


def document_columns(table: Table, dialect: Dialect) -> dict[str, Column[Any]]:
    """Return the columns that hold JSON in this engine, by name."""
    kinds = {column.name: stored_type(column.type) for column in table.columns}
    return {
        name: table.c[name]
        for name, kind in kinds.items()
        if isinstance(kind, JSON) and isinstance(kind.dialect_impl(dialect), JSON)
    }


def as_text(column: Column[Any], dialect: Dialect) -> ColumnElement[Any]:
    """Return a column's JSON as its text. (SQLite may give a number for one.)"""
    return cast(column, Text()) if dialect.name == "postgresql" else type_coerce(column, Text())


def line_text(value: Any) -> str:
    """Return what stands in a line for a column's JSON.

    Args:
        value: as ``as_text`` gives it; None: SQL's NULL.

    Raises:
        ValueError: it is no JSON, or could not be read again.
    """
    if value is None:
        return "null"
    text = str(value)
    if deep_member(text, DEEPEST) is not None:
        raise ValueError(TOO_DEEP)
    if (document := _checked(text)) is None:
        return _NULL_TEXT
    if document == JSON_NULL:
        raise ValueError(TAKEN)
    return text.replace("\n", " ").replace("\r", " ")  # between its tokens: in a text they are escaped


def deep_member(text: str, most: int) -> str | None:
    """Return the first member of an object in which JSON has more than so many levels; None: none has.

    Args:
        text: JSON, of however many levels; what is no object has a member without a name.
        most: levels, the object's own among them.
    """
    if text.count("[") + text.count("{") <= most:
        return None
    level, name = 0, '""'
    for token in _TOKENS.findall(text):
        if token in {"[", "{"}:
            level += 1
            if level > most:
                return str(json.loads(name))
        elif token in {"]", "}"}:
            level -= 1
        elif level == 1:
            name = token
    return None


def read_documents(line: str, names: set[str]) -> dict[str, str | None]:
    """Return the JSON of some columns of a line as text; None is SQL's NULL."""
    document = load_json(line)
    return {name: _text(value) for name, value in document.items() if name in names}


def _text(value: Any) -> str | None:
    if value is None:
        return None
    return "null" if value == JSON_NULL else _exact(value)


def _exact(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_encode(key)}:{_exact(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_exact, value)) + "]"
    return str(value) if isinstance(value, JsonNumber) else _encode(value)


def same_json(first: Any, second: Any) -> bool:
    """Whether two texts of JSON say the same, to the last digit; None is SQL's NULL."""
    if first is None or second is None:
        return first is second
    return bool(_with_digits(str(first)) == _with_digits(str(second)))
