"""Looking for rows in archives, by the columns of their table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import ColumnElement, Enum, Table, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import TypeDecorator, TypeEngine

from db.archive_tables import ARCHIVE_RUN_ID, ARCHIVED_AT, existing_archive
from db.archives.keys import Key, key_columns
from db.archives.values import read_value
from db.python_types import python_type

Operator = Literal["=", "~", ">=", "<"]


class ConditionError(ValueError):
    """A condition does not fit the table; the message is one line."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What a column must hold."""

    column: str
    operator: Operator
    """Equal, contains the text, not before, before."""
    value: Any

    def of(self, table: Table) -> ColumnElement[bool]:
        """Return it for SQL."""
        column = table.c[self.column]
        conditions: dict[Operator, Callable[[], ColumnElement[bool]]] = {
            "=": lambda: column == self.value,
            "~": lambda: column.contains(self.value, autoescape=True),
            ">=": lambda: column >= self.value,
            "<": lambda: column < self.value,
        }
        return conditions[self.operator]()

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether a row's values meet it."""
        value = values.get(self.column)
        if value is None:
            return False
        if self.operator == "~":
            return self.value in value
        if self.operator == "=":
            return bool(value == self.value)
        return bool(value >= self.value if self.operator == ">=" else value < self.value)


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row in an archive."""

    key: Key
    values: Mapping[str, Any]
    archived_at: datetime
    run_id: UUID
    """The run that archived it."""
    file: str | None = None
    """The file that it lies in; None: the archive table."""


def read_condition(table: Table, text: str) -> Condition:
    """Return the condition that somebody has written as ``COLUMN=VALUE`` or ``COLUMN~TEXT``.

    Raises:
        ConditionError: it is written otherwise, the table has no such column, or the column takes no such value. The
            name goes nowhere near SQL.
    """
    name, operator, value = _split(text)
    if name not in table.c:
        near = get_close_matches(name, table.c.keys(), n=1)
        advice = f"did you mean {near[0]}?" if near else f"those are {', '.join(table.c.keys())}"
        raise ConditionError(f"{name[:100]!r} is no column of {table.fullname}: {advice}")
    column = table.c[name]
    if python_type(column.type) in {dict, list}:
        raise ConditionError(f"{name}{operator}{value[:60]}: {name} holds JSON or a list: ask for another column")
    if operator == "~":
        if not _is_text(column.type):
            raise ConditionError(f"{name}~{value[:60]}: {name} is no text: write {name}=VALUE")
        return Condition(name, "~", value)
    return Condition(name, "=", _read(name, column.type, value))


def _split(text: str) -> tuple[str, str, str]:
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ConditionError(f"{text[:100]!r} is no UTF-8: write it as text")
    places = [place for place in (text.find("="), text.find("~")) if place > 0]
    if not places:
        raise ConditionError(f"{text[:100]!r} is no condition: write COLUMN=VALUE, or COLUMN~TEXT for a part of a text")
    place = min(places)
    return text[:place], text[place], text[place + 1 :]


def _is_text(kind: TypeEngine[Any]) -> bool:
    base = kind.impl_instance if isinstance(kind, TypeDecorator) else kind
    return python_type(kind) is str and not isinstance(base, Enum)  # a native one is compared as a whole


def _read(name: str, kind: Any, text: str) -> Any:
    try:
        value = read_value(kind, text)
    except (ValueError, TypeError, ArithmeticError, AttributeError):
        raise ConditionError(f"{name}={text[:60]}: {name} takes no such value") from None
    if isinstance(value, datetime) and value.tzinfo is None:
        raise ConditionError(f"{name}={text}: it has no offset: write it as {text}Z or {text}+01:00")
    return value


async def search_archive(
    session: AsyncSession, table: Table, conditions: Sequence[Condition], *, limit: int
) -> list[FoundRow]:
    """Return rows of a table's archive, by their key.

    Args:
        session: nothing is written.
        table: the mapped one.
        conditions: all must hold.
        limit: of the rows.
    """
    archive = existing_archive(table)
    if archive is None:
        return []
    names, width = [column.name for column in table.columns], len(table.columns)
    order = [archive.c[column.name] for column in key_columns(table)]
    query = select(*[archive.c[name] for name in names], archive.c[ARCHIVED_AT], archive.c[ARCHIVE_RUN_ID])
    query = query.where(*[condition.of(archive) for condition in conditions]).order_by(*order).limit(limit)
    found = []
    for row in await session.execute(query):
        values = dict(zip(names, row[:width], strict=True))
        key = tuple(values[column.name] for column in key_columns(table))
        found.append(FoundRow(key, values, row[width], row[width + 1]))
    return found


@dataclass(frozen=True, slots=True)
class ArchiveSize:
    """What an archive table holds."""

    rows: int
    first_archived_at: datetime | None
    last_archived_at: datetime | None


async def measure_archive(session: AsyncSession, table: Table) -> ArchiveSize | None:
    """Return what a table's archive holds; None where it has none."""
    archive = existing_archive(table)
    if archive is None:
        return None
    at = archive.c[ARCHIVED_AT]
    query = select(func.count(), func.min(at), func.max(at)).select_from(archive)
    return ArchiveSize(*(await session.execute(query)).one())
