"""A column's values as JSON has them, and back: one form a type, for the lines of files and for the texts of keys."""

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Enum
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.types import Interval, TypeDecorator, TypeEngine

from db.fields import json_value, shortened
from db.python_types import python_type


@dataclass(frozen=True, slots=True)
class Form:
    """How values of a Python type stand in JSON."""

    write: Callable[[Any], Any]
    read: Callable[[Any], Any]
    """From what ``write`` has written; a number may as well be a text."""


_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
_ANY = DefaultDialect()
_MICROSECOND = timedelta(microseconds=1)


def _same(*kinds: type[Any]) -> Callable[[Any], Any]:
    def same(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise TypeError(f"{shortened(value)} is a {type(value).__name__} and no {kinds[0].__name__}")
        return value

    return same


def _read_boolean(value: Any) -> bool:
    if (found := _BOOLEANS.get(str(value).lower())) is None:
        raise ValueError(f"{value!r} is neither true nor false")
    return found


def _read_bytes(value: str) -> bytes:
    return b64decode("".join(value.split()), validate=True)  # PostgreSQL breaks its lines


def _read_duration(value: Any) -> timedelta:
    return timedelta(microseconds=int((Decimal(str(value)) * 1_000_000).to_integral_value()))


FORMS: dict[type[Any], Form] = {
    UUID: Form(UUID.__str__, UUID),
    Decimal: Form(Decimal.__str__, lambda value: Decimal(str(value))),
    datetime: Form(datetime.isoformat, datetime.fromisoformat),
    date: Form(date.isoformat, date.fromisoformat),
    time: Form(time.isoformat, time.fromisoformat),
    # Its seconds, as a text: a float has not all digits of a long one.
    timedelta: Form(lambda value: str(Decimal(value // _MICROSECOND).scaleb(-6)), _read_duration),
    bytes: Form(lambda value: b64encode(value).decode(), _read_bytes),
    bool: Form(_same(bool), _read_boolean),
    int: Form(_same(int), int),
    float: Form(_same(float, int), float),
    str: Form(_same(str), str),
}


def form_of(kind: type[Any]) -> Form | None:
    """Return the form of a Python type, or of one that it is built on; None where there is none."""
    return next((FORMS[one] for one in kind.__mro__ if one in FORMS), None)


def writer_of(kind: TypeEngine[Any]) -> Callable[[Any], Any]:
    """Return what writes a column's values, except None; it raises ``TypeError`` for what is none of that type."""
    stored = _stored(kind)
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
    stored = _stored(kind)
    if value is None:
        return None
    if isinstance(stored, Enum):
        return _read_enum(stored, value)
    # A type of one engine that does not say what its values are: as they are.
    form = form_of(python_type(stored))
    return value if form is None else form.read(value)


def _stored(kind: TypeEngine[Any]) -> TypeEngine[Any]:
    """Return the type that one is built on. (``Interval`` has values of another kind than what it is built on.)"""
    while isinstance(kind, TypeDecorator) and not isinstance(kind, Interval):
        kind = kind.impl_instance
    return kind


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
