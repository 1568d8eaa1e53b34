"""From a JSON value to what a column takes."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any
from uuid import UUID

from sqlalchemy import Column

from db.json_text import to_json_text
from db.python_types import python_type
from db.types import ShortText, SmartJSON, checked_text


def read_value(column: Column[Any], value: Any) -> Any:
    """Return the value as the column takes it: ISO 8601 for times, text for UUIDs and decimals, an enum's value or
    name, seconds for durations. A value that is of the column's type already is taken as it is.

    Raises:
        ValueError: it cannot; the message is a rule that follows the field's name and the value.
    """
    if value is None:
        if not column.nullable:
            raise ValueError("may not be empty: give a value, or leave the field out")
        return None
    if isinstance(column.type, SmartJSON):
        to_json_text(value)
        return value
    kind = python_type(column.type)
    reader = next((read for known, read in _READERS if issubclass(kind, known)), None)
    return value if reader is None else reader(value, column)


def _read_enum(value: Any, column: Column[Any]) -> Enum:
    members: list[Enum] = list(column.type.python_type)  # type: ignore[call-overload]
    for member in members:
        if value is member or value in (member.value, member.name):
            return member
    raise ValueError(f"is none of {', '.join(str(member.value) for member in members)}")


def _read_datetime(value: Any, column: Column[Any]) -> datetime:
    del column
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("is no time: write it as 2026-01-31T08:30:00+01:00") from None
    if instant.tzinfo is None:
        raise ValueError("has no offset: write it as 2026-01-31T08:30:00+01:00")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("is not of the years 1 to 9999") from None


def _iso(kind: type[date | time], example: str) -> Callable[[Any, Column[Any]], Any]:
    def read(value: Any, column: Column[Any]) -> Any:
        del column
        try:
            return value if isinstance(value, kind) else kind.fromisoformat(value)
        except (TypeError, ValueError):
            raise ValueError(f"is no {kind.__name__}: write it as {example}") from None

    return read


def _read_uuid(value: Any, column: Column[Any]) -> UUID:
    del column
    try:
        return value if isinstance(value, UUID) else UUID(value)
    except (AttributeError, TypeError, ValueError):
        raise ValueError("is no UUID: write its 32 hexadecimal digits") from None


def _read_decimal(value: Any, column: Column[Any]) -> Decimal:
    del column
    try:
        # A float is not the number that somebody wrote.
        number = Decimal("nothing" if isinstance(value, bool | float) else value)
    except (TypeError, ValueError, InvalidOperation):
        raise ValueError("is no decimal number: write it as text, as in '12.50'") from None
    if not number.is_finite():
        raise ValueError("is no finite number")
    return number


def _read_duration(value: Any, column: Column[Any]) -> timedelta:
    del column
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return timedelta(seconds=value)
    raise ValueError("is no duration: write its seconds as a number")


def _read_text(value: Any, column: Column[Any]) -> str:
    text: str = _exactly(str)(value, column)
    checked_text(text)
    length = column.type.length if isinstance(column.type, ShortText) else None
    if length is not None and len(text) > length:
        raise ValueError(f"has {len(text)} characters but the field takes {length}: shorten it")
    return text


def _exactly(*kinds: type[Any]) -> Callable[[Any, Column[Any]], Any]:
    def read(value: Any, column: Column[Any]) -> Any:
        kind = python_type(column.type)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"is a {type(value).__name__} and no {kind.__name__}")
        return kind(value)

    return read


_READERS: tuple[tuple[type[Any], Callable[[Any, Column[Any]], Any]], ...] = (
    (Enum, _read_enum),
    (datetime, _read_datetime),
    (date, _iso(date, "2026-01-31")),
    (time, _iso(time, "08:30:00")),
    (timedelta, _read_duration),
    (UUID, _read_uuid),
    (Decimal, _read_decimal),
    (bool, _exactly(bool)),
    (int, _exactly(int)),
    (float, _exactly(int, float)),
    (str, _read_text),
)
"""The first that fits the column's type is taken."""
