"""A column's values as JSON has them, and back: one form a type, for the lines of files and for the texts of keys."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from json import JSONDecoder
from math import isfinite, isnan
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, JSON, Enum, LargeBinary
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.types import Interval, TypeDecorator, TypeEngine

from db.fields import json_value, shortened
from db.python_types import python_type
from db.types import UtcDateTime


@dataclass(frozen=True, slots=True)
class Form:
    """How values of a Python type stand in JSON."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    """From what ``write`` has written; a number may as well be a text."""


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_ANY = DefaultDialect()
_MICROSECOND = timedelta(microseconds=1)


class JsonNumber(float):
    """A number of JSON that knows its digits: they may be more than a float has."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


_MOST_DIGITS = 4_000
"""Python reads no integer of more than 4,300."""


def _json_integer(text: str) -> int | JsonNumber:
    return int(text) if len(text) <= _MOST_DIGITS else JsonNumber(text)


load_json = JSONDecoder(parse_float=JsonNumber, parse_int=_json_integer).decode
"""Read JSON, with all digits of its numbers."""
JSON_NULL = {"holdfast:json": "null"}
"""What stands for JSON's null in a line, where ``null`` is SQL's."""


def _same(kind: type[Any]) -> Callable[[Any], Any]:
    def same(value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{shortened(value)} is a {type(value).__name__} and no {kind.__name__}")
        return value

    return same


def _read_boolean(value: Any) -> bool:
    if (found := _BOOLEANS.get(str(value).lower())) is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return found


def _read_bytes(value: str) -> bytes:
    return b64decode("".join(value.split()), validate=True)  # PostgreSQL breaks its lines


def _read_decimal(value: Any) -> Decimal:
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{shortened(value)} is no number") from None


def _read_duration(value: Any) -> timedelta:
    return timedelta(microseconds=int((_read_decimal(value) * 1_000_000).to_integral_value()))


def _write_float(value: Any) -> Any:
    """JSON has no number that is none or has no end: they are texts, as PostgreSQL writes them."""
    if isfinite(value):
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


FORMS: dict[type[Any], Form] = {
    UUID: Form(UUID.__str__, UUID),
    Decimal: Form(Decimal.__str__, _read_decimal),
    datetime: Form(datetime.isoformat, datetime.fromisoformat),
    date: Form(date.isoformat, date.fromisoformat),
    time: Form(time.isoformat, time.fromisoformat),
    # Its seconds, as a text: a float has not all digits of a long one.
    timedelta: Form(lambda value: str(Decimal(value // _MICROSECOND).scaleb(-6)), _read_duration),
    bytes: Form(lambda value: b64encode(value).decode(), _read_bytes),
    bool: Form(_same(bool), _read_boolean),
    int: Form(_same(int), int),
    float: Form(_write_float, float),
    str: Form(_same(str), str),
}


def form_of(kind: type[Any]) -> Form | None:
    """Return the form of a Python type, or of one that it is built on; None where there is none."""
    return next((FORMS[one] for one in kind.__mro__ if one in FORMS), None)


def stored_type(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type that one is built on. (``Interval`` has values of another kind than what it is built on.)"""
    while isinstance(kind, TypeDecorator) and not isinstance(kind, Interval):
        kind = kind.impl_instance
    return kind


def writer_of(kind: TypeEngine[Any]) -> Callable[[Any], Any]:
    """Return what writes a column's values, except None; it raises ``TypeError`` for what is none of that type."""
    stored = stored_type(kind)
    if isinstance(stored, Enum) and stored.enum_class is not None:
        to_label: Callable[[Any], Any] = stored.bind_processor(_ANY)  # type: ignore[no-untyped-call]
        return to_label
    form = form_of(python_type(stored))
    return json_value if form is None else form.write


def read_value(kind: TypeEngine[Any], value: Any) -> Any:
    """Return a column's value from its form in JSON, or from that form as a text.

    Raises:
        ValueError, TypeError, ArithmeticError: it is none of that type.
    """
    stored = stored_type(kind)
    if value is None:
        return None
    if isinstance(stored, Enum):
        return _read_enum(stored, value)
    if isinstance(stored, ARRAY):
        return _read_array(stored.item_type, value)
    if isinstance(stored, JSON):
        return None if value == JSON_NULL else value
    form = form_of(python_type(stored))
    return value if form is None else form.read(value)


def no_way_back(kind: TypeEngine[Any]) -> str | None:
    """Return why values of a column's type cannot be brought back from files exactly; None: they can."""
    inner = kind
    while isinstance(inner, TypeDecorator) and not isinstance(inner, _KNOWN):
        if any(getattr(type(inner), name) is not getattr(TypeDecorator, name) for name in _CONVERTERS):
            return f"{type(inner).__name__} changes its values on their way to Python"
        inner = inner.impl_instance
    stored = stored_type(kind)
    if isinstance(stored, ARRAY):
        item = stored_type(stored.item_type)
        is_written_otherwise = isinstance(item, _NOT_IN_ARRAYS)
        return f"an array of {item!r} has no form in JSON" if is_written_otherwise else no_way_back(stored.item_type)
    if isinstance(stored, _AS_THEY_ARE) or (form_of(python_type(stored)) and not isinstance(stored, mysql.SET)):
        return None
    return f"{stored!r} has no form in JSON"


_KNOWN = (UtcDateTime, Interval)
_CONVERTERS = ("process_result_value", "result_processor")
_NOT_IN_ARRAYS = (JSON, LargeBinary, Interval, postgresql.INTERVAL)
"""PostgreSQL writes them otherwise there."""
_AS_THEY_ARE = (Enum, JSON, mysql.YEAR, postgresql.OID)


def _read_array(item: TypeEngine[Any], values: Any) -> Any:
    if isinstance(values, list):
        return [_read_array(item, value) for value in values]
    return read_value(item, values)


def _read_enum(kind: Enum, value: Any) -> Any:
    """An enum stands in files as it is stored, by its label, which is a member's name unless the model says otherwise;
    SQLite, MariaDB and MySQL have once written its value."""
    if kind.enum_class is None:
        return value
    if value in kind.enums:
        from_label: Callable[[Any], Any] = kind.result_processor(_ANY, None)  # type: ignore[no-untyped-call]
        return from_label(value)
    members = kind.enum_class.__members__
    return members[value] if value in members else kind.enum_class(value)


def same_value(first: Any, second: Any) -> bool:
    """Whether two values of a column are the same; unlike in SQL and Python, NaN is the same as NaN."""
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_value, first, second))
    return bool(first == second) or (first != first and second != second)  # noqa: PLR0124 - so is NaN alone
