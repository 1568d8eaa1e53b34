"""Which rows one step of an archive is about: found and locked first, then taken by their keys or by their place."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from typing import cast as cast_type
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Table,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import NullType, UserDefinedType

from db.archives.keys import Key, key_columns


class ProofFailed(Exception):  # noqa: N818
    """What was archived is not what was to be deleted; the transaction must be rolled back."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What one side of a move holds."""

    rows: int
    checksum: int
    """The sum of the rows' hashes, which does not depend on their order."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A table as the database has it, and where its rows go."""

    table: Table
    archive: Table | None
    """None where they go to files or nowhere."""
    types: dict[str, str] = field(default_factory=dict)
    """Column -> type, in the database's own words."""

    @property
    def names(self) -> list[str]:
        """The table's columns, in the order of the archive's."""
        return [column.name for column in self.table.columns]


@dataclass(frozen=True, slots=True)
class Stamp:
    """What an archived row is marked with."""

    archived_at: datetime
    run_id: UUID


class Chosen(Protocol):
    """Rows, as a condition on a table or on its archive."""

    def of(self, table: Table, dialect: str) -> ColumnElement[bool]:
        """Return the condition."""
        ...


@dataclass(frozen=True, slots=True)
class ByKeys:
    """Rows of these keys."""

    keys: Sequence[Key]

    def of(self, table: Table, dialect: str) -> ColumnElement[bool]:
        """Return the condition, for the table or its archive: both have the same key."""
        return among_keys([table.c[column.name] for column in key_columns(table)], self.keys, dialect)


@dataclass(frozen=True, slots=True)
class ByPages:
    """The due rows that lie in some pages of the table (PostgreSQL)."""

    lower: int
    upper: int
    """The first page that is not among them."""
    before: datetime

    def of(self, table: Table, dialect: str) -> ColumnElement[bool]:
        """Return the condition, for the table alone."""
        del dialect
        place: ColumnElement[Any] = literal_column("ctid")
        return and_(place >= _tid(self.lower), place < _tid(self.upper), is_due(table, self.before))


@dataclass(frozen=True, slots=True)
class ByDeletions:
    """The due rows between two places of the index on ``(deleted_at, key)`` (PostgreSQL)."""

    lower: tuple[Any, ...] | None
    """Behind which they begin; None: at the first."""
    upper: tuple[Any, ...] | None
    """The last of them; None: all there are."""
    before: datetime

    def of(self, table: Table, dialect: str) -> ColumnElement[bool]:
        """Return the condition, for the table alone."""
        del dialect
        columns = [table.c.deleted_at, *key_columns(table)]
        conditions = [is_due(table, self.before)]
        for bound, is_lower in ((self.lower, True), (self.upper, False)):
            if bound is not None:
                typed = tuple_(*(literal(value, column.type) for value, column in zip(bound, columns, strict=True)))
                conditions.append(tuple_(*columns) > typed if is_lower else tuple_(*columns) <= typed)
        return and_(*conditions)


def is_due(table: Table, before: datetime) -> ColumnElement[bool]:
    """Return the condition that a row was soft-deleted before an instant, in the words of the index for it."""
    # Untyped: as a Boolean it would read "= 1" on SQLite, and no longer match the index's WHERE is_deleted.
    marked: Any = type_coerce(table.c.is_deleted, cast_type("Any", NullType()))
    return and_(marked, table.c.deleted_at < before)


def among_keys(columns: Sequence[ColumnElement[Any]], keys: Collection[Key], dialect: str) -> ColumnElement[bool]:
    """Return the condition that columns hold one of these keys."""
    if len(columns) > 1:
        return tuple_(*columns).in_(keys)
    values = [key[0] for key in keys]
    if dialect != "postgresql":
        return columns[0].in_(values)
    return columns[0] == any_(bindparam(None, values, type_=ARRAY(columns[0].type), unique=True))


async def count_due(session: AsyncSession, table: Table, before: datetime) -> int:
    """Return how many rows are due."""
    query = select(func.count()).select_from(table).where(is_due(table, before))
    return int((await session.execute(query)).scalar_one())


def _tid(page: int) -> ColumnElement[Any]:
    return cast(bindparam(None, (page, 0), type_=NullType(), unique=True), _Tid())


class _Tid(UserDefinedType[tuple[int, int]]):
    """PostgreSQL's place of a row: page and number in it."""

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        """Return the type's name."""
        del kw
        return "tid"
