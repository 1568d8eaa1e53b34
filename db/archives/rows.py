"""Which rows one step of an archive is about: found and locked first, then taken by their keys or by their place."""

from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from typing import cast as cast_type
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    and_,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import NullType, UserDefinedType

from db.archives.keys import Key, key_columns
from db.past_orm import DriverStatement

AnySelect = Select[*tuple[Any, ...]]


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
    statements: dict[Hashable, Any] = field(default_factory=dict)
    """Those that each batch executes again with other values; to make one takes longer than to execute it."""

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

    @property
    def form(self) -> Hashable | None:
        """What it has in common with others whose condition differs in ``values`` alone; None: it holds its values."""
        ...

    @property
    def values(self) -> dict[str, Any]:
        """The values of the condition's parameters, by name: to be given when it is executed."""
        ...


@dataclass(frozen=True, slots=True)
class ByKeys:
    """Rows of these keys."""

    keys: Sequence[Key]
    form: None = None
    values: dict[str, Any] = field(default_factory=dict)

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
        lower, upper = (cast(bindparam(name, type_=NullType()), _Tid()) for name in ("lower", "upper"))
        return and_(place >= lower, place < upper, is_due(table, self.before))

    @property
    def form(self) -> Hashable:
        """All are alike."""
        return "pages"

    @property
    def values(self) -> dict[str, Any]:
        """The values of the condition's parameters, by name."""
        return {"lower": (self.lower, 0), "upper": (self.upper, 0), DUE_BEFORE: self.before}


@dataclass(frozen=True, slots=True)
class ByDeletions:
    """The due rows between two places of the index on ``(deleted_at, key)`` (PostgreSQL).

    Where a place has no key but NULL, its ``deleted_at`` decides alone: it must be that of no row.
    """

    lower: tuple[Any, ...]
    """Behind which they begin."""
    upper: tuple[Any, ...]
    """The last of them."""
    before: datetime

    def of(self, table: Table, dialect: str) -> ColumnElement[bool]:
        """Return the condition, for the table alone."""
        del dialect
        columns = [table.c.deleted_at, *key_columns(table)]
        lower, upper = (
            tuple_(*(bindparam(f"{name}_{place}", type_=column.type) for place, column in enumerate(columns)))
            for name in ("lower", "upper")
        )
        return and_(is_due(table, self.before), tuple_(*columns) > lower, tuple_(*columns) <= upper)

    @property
    def form(self) -> Hashable:
        """All are alike."""
        return "deletions"

    @property
    def values(self) -> dict[str, Any]:
        """The values of the condition's parameters, by name."""
        bounds = (("lower", self.lower), ("upper", self.upper))
        places = {f"{name}_{place}": value for name, bound in bounds for place, value in enumerate(bound)}
        return places | {DUE_BEFORE: self.before}


async def run_kept(
    session: AsyncSession, shape: Shape, chosen: Chosen, *, what: Hashable, build: Callable[[], AnySelect], **more: Any
) -> Any:
    """Return the result of a statement about chosen rows, which is made only once for all choices of the same form.

    Args:
        session: any.
        shape: their table, which keeps the statement.
        chosen: the rows.
        what: tells the statement from others about the same table.
        build: makes it; each of its columns has a name that Python may have.
        more: the values of further parameters.
    """
    values = chosen.values | more
    if chosen.form is None:
        return await session.execute(build(), values)
    key = (what, chosen.form)
    if key not in shape.statements:
        shape.statements[key] = DriverStatement.of(build(), session.get_bind().dialect)
    return await shape.statements[key].execute(session, values)


DUE_BEFORE = "due_before"
"""The parameter's name."""


def is_due(table: Table, before: datetime) -> ColumnElement[bool]:
    """Return the condition that a row was soft-deleted before an instant, in the words of the index for it."""
    # Untyped: as a Boolean it would read "= 1" on SQLite, and no longer match the index's WHERE is_deleted.
    marked: Any = type_coerce(table.c.is_deleted, cast_type("Any", NullType()))
    return and_(marked, table.c.deleted_at < bindparam(DUE_BEFORE, before, type_=table.c.deleted_at.type))


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


class _Tid(UserDefinedType[tuple[int, int]]):
    """PostgreSQL's place of a row: page and number in it."""

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        """Return the type's name."""
        del kw
        return "tid"
