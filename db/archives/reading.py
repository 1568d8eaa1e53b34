"""From the lines of an archive's file back to rows: what ``db.archives.lines`` has written, from whatever engine."""

from typing import Any

from sqlalchemy import Column, Table

from db.archives.keys import Key, key_columns
from db.archives.values import load_json, read_value


class LineUnreadable(ValueError):  # noqa: N818
    """A line of a file is no row of its table; the message is one line.

    Args:
        message: what is wrong, and what to do.
        problem: the first of it alone: the column, and why it cannot have the value.
    """

    def __init__(self, message: str, problem: str = "") -> None:
        super().__init__(message)
        self.problem = problem


_UNREADABLE = (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError)


def read_line(table: Table, line: str) -> dict[str, Any]:
    """Return a line's values by column.

    Raises:
        LineUnreadable: it is not JSON, or has a column or a value that the table cannot take.
    """
    document = _read(table, line)
    if unknown := sorted(document.keys() - set(table.columns.keys())):
        raise LineUnreadable(f"it has a column {unknown[0]} that {table.fullname} has not any more: map it again")
    return {name: _value(table.c[name], value) for name, value in document.items()}


def read_key(table: Table, line: str) -> Key:
    """Return the key of a line's row; whatever else stands in it is not looked at.

    Raises:
        LineUnreadable: it is not JSON, or its key is none of the table.
    """
    document = _read(table, line)
    return tuple(_value(column, document.get(column.name)) for column in key_columns(table))


def _read(table: Table, line: str) -> dict[str, Any]:
    try:
        document = load_json(line)
        document.keys()
    except _UNREADABLE as error:
        raise _unreadable(table, str(error)) from error
    return document  # type: ignore[no-any-return]


def _value(column: Column[Any], value: Any) -> Any:
    try:
        return read_value(column.type, value)
    except _UNREADABLE as error:
        raise _unreadable(column.table, f"{column.name}: {error}") from error


def _unreadable(table: Any, problem: str) -> LineUnreadable:
    return LineUnreadable(f"a line is no row of {table.fullname} ({problem}): look into the file", problem)
