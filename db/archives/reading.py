"""From the lines of an archive's file back to rows: what ``db.archives.lines`` has written, from whatever engine."""

import json
from typing import Any

from sqlalchemy import Table

from db.archives.values import read_value


class LineUnreadable(ValueError):  # noqa: N818
    """A line of a file is no row of its table; the message is one line."""


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
