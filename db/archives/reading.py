"""From the lines of an archive's file back to rows: what ``db.archives.lines`` has written, from whatever engine."""

import json
from base64 import b64decode
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import Enum, Table
from sqlalchemy.types import TypeDecorator, TypeEngine

from db.python_types import python_type


class LineUnreadable(ValueError):  # noqa: N818
    """A line of a file is no row of its table; the message is one line."""


_FROM_JSON: dict[type[Any], Callable[[Any], Any]] = {
    UUID: UUID,
    Decimal: Decimal,
    datetime: datetime.fromisoformat,
    date: date.fromisoformat,
    time: time.fromisoformat,
    timedelta: lambda seconds: timedelta(seconds=float(seconds)),
    bytes: b64decode,
    float: float,
    bool: bool,
    int: int,
    str: str,
}


def read_line(table: Table, line: str) -> dict[str, Any]:
    """Return a line's values by column.

    Raises:
        LineUnreadable: it is not JSON, or has a column or a value that the table cannot take.
    """
    try:
        document: dict[str, Any] = json.loads(line)
        unknown = sorted(document.keys() - set(table.columns.keys()))
        values = {name: read_value(table.c[name].type, value) for name, value in document.items() if not unknown}
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise LineUnreadable(f"a line is no row of {table.fullname} ({error}): look into the file") from error
    if unknown:
        raise LineUnreadable(f"it has a column {unknown[0]} that {table.fullname} has not any more: map it again")
    return values


def read_value(kind: TypeEngine[Any], value: Any) -> Any:
    """Return a column's value from its form in JSON.

    Raises:
        ValueError, TypeError, ArithmeticError: it is none of that type.
    """
    if value is None:
        return None
    if isinstance(kind, TypeDecorator):
        return read_value(kind.impl_instance, value)
    if isinstance(kind, Enum):
        return _read_enum(kind, value)
    # A type of one engine that does not say what its values are: as they are.
    return _FROM_JSON.get(python_type(kind), lambda same: same)(value)


def _read_enum(kind: Enum, value: Any) -> Any:
    """PostgreSQL writes what it stores, a member's name; the others its value."""
    if kind.enum_class is None:
        return value
    members = kind.enum_class.__members__
    return members[value] if value in members else kind.enum_class(value)
