"""How an archive finds what is due: page by page, by the order of the key, or by that of the deletion.

A look-up of the form ``id in (select ... limit n)`` begins anew each time and reads over what it has left behind; these
go on where they stood. Where due rows are dense, the table is walked in its own order: by pages on PostgreSQL (a TID
range scan, from version 14 on), by the key elsewhere. Where they are sparse, the index on ``(deleted_at, key)`` leads
from one to the next.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal

from sqlalchemy import (
    Column,
    ColumnElement,
    Integer,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.keys import Key, key_columns, key_text, parse_key
from db.archives.rows import AnySelect, ByDeletions, ByPages, Chosen, Shape, is_due, run_kept
from db.python_types import python_type
from db.run_sessions import MYSQL_DIALECTS

WalkKind = Literal["pages", "keys", "deletions"]
DENSE_SHARE = 0.05
"""From this share of due rows on, the table is walked in its own order."""
MEASURED_ROWS = 20
PLACED_ROWS = 1_000
SHORT_BYTES = 16
"""What a column takes about, besides a long value."""
_LONG = {str, bytes, dict, list, object}
_TID_RANGES_SINCE = (14, 0)
_BEFORE_ALL = datetime(1000, 1, 1, tzinfo=UTC)
"""Nothing that the models hold is older."""


@dataclass(frozen=True, slots=True)
class Walk:
    """A way through a table, and how far it has come. It can be stopped and gone on with at any step."""

    kind: WalkKind
    position: tuple[str, ...] = ()
    """The key of the last row as text, after its ``deleted_at`` where that leads."""
    page: int = 0
    pages: int = 0
    """How many the table had at the start; what came behind them later is not due."""
    end: tuple[str, ...] = ()
    """By keys: the greatest that belongs to it, as text; empty: it goes on to the end of the table."""
    is_over: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values, for a cursor."""
        return {
            "kind": self.kind,
            "position": list(self.position),
            "page": self.page,
            "pages": self.pages,
            "is_over": self.is_over,
            **({"end": list(self.end)} if self.end else {}),  # an older version reads all but this
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Walk":
        """Return what ``as_json`` has told, or that of a version that knew no ``end``."""
        return cls(**{**values, **{name: tuple(values.get(name, ())) for name in ("position", "end")}})


@dataclass(frozen=True, slots=True)
class Stretch:
    """The next piece of a walk."""

    table: Table
    walk: Walk
    before: datetime
    """Rows that were deleted before it are due."""
    count: int
    """At most so many pages or rows."""

    def pages(self) -> tuple[ByPages, Walk]:
        """Return the due rows of the next pages, and the walk behind them."""
        walk = self.walk
        upper = min(walk.page + self.count, walk.pages)
        behind = Walk("pages", page=upper, pages=walk.pages, is_over=upper >= walk.pages)
        return ByPages(walk.page, upper, self.before), behind


async def choose_walk(session: AsyncSession, table: Table, *, due: int, by_pages: bool, again: bool = False) -> Walk:
    """Return the way that suits a table.

    Args:
        session: nothing is written.
        table: a mapped one.
        due: how many of its rows are due.
        by_pages: whether pages will do, whose rows are not looked at one by one.
        again: whether it has been walked already, for what was left behind.
    """
    # One over expressions may have no column.
    has_index = any(next(iter(index.columns), None) is table.c.deleted_at for index in table.indexes)
    total = 0 if has_index and again else await _estimate_rows(session, table)
    if has_index and (again or due < DENSE_SHARE * total):
        return Walk("deletions")
    dialect = session.get_bind().dialect
    if not by_pages or dialect.name != "postgresql" or (dialect.server_version_info or (0,)) < _TID_RANGES_SINCE:
        return Walk("keys")
    return Walk("pages", pages=await _count_pages(session, table))


async def count_within(session: AsyncSession, stretch: Stretch, most_bytes: int) -> int:
    """Return how many pages or rows of a walk hold about so many bytes, as the first due rows do; at least one.

    Looked at are the values as they are read: what a database has packed, or keeps apart from the row, counts in full.

    Args:
        session: nothing is written.
        stretch: where the walk stands.
        most_bytes: how many.
    """
    table, due = stretch.table, is_due(stretch.table, stretch.before)
    first = select(_width(table).label("width")).where(due).limit(MEASURED_ROWS).subquery()
    width = (await session.execute(select(func.avg(first.c.width)))).scalar_one()
    count = most_bytes / max(float(width or 0), 1.0)
    if stretch.walk.kind == "pages":
        page: ColumnElement[Any] = literal_column("(ctid::text::point)[0]").label("page")
        places = select(page).select_from(table).where(due).limit(PLACED_ROWS).subquery()
        counts = select(func.count(), func.count(places.c.page.distinct()))
        rows, pages = (await session.execute(counts)).one()
        count *= pages / max(rows, 1)
    return max(1, int(count))


def _width(table: Table) -> ColumnElement[Any]:
    kinds = {column: python_type(column.type) for column in table.columns}
    long = [column if kind is bytes else cast(column, Text()) for column, kind in kinds.items() if kind in _LONG]
    lengths: list[ColumnElement[Any]] = [func.coalesce(func.length(one), 0, type_=Integer()) for one in long]
    return sum(lengths, start=literal(SHORT_BYTES * len(kinds), Integer()))


async def choose_rows(session: AsyncSession, stretch: Stretch) -> tuple[list[Key], Walk]:
    """Lock the next due rows of a walk by keys or by deletions, without those that others have locked.

    Returns:
        their keys, and the walk behind them.
    """
    table, walk, dialect = stretch.table, stretch.walk, session.get_bind().dialect.name
    keys = key_columns(table)
    leading: list[Column[Any]] = [table.c.deleted_at, *keys] if walk.kind == "deletions" else keys
    query = select(*leading).where(is_due(table, stretch.before)).order_by(*leading).limit(stretch.count)
    if walk.position:
        query = query.where(_behind(leading, _values(table, walk), dialect))
    if walk.end:
        query = query.where(leading[0] <= literal(parse_key(table, walk.end[0])[0], leading[0].type))
    if dialect != "sqlite":
        query = query.with_for_update(skip_locked=True)
    rows = [tuple(row) for row in await session.execute(query)]
    if not rows:
        return [], replace(walk, is_over=True)
    last, width = rows[-1], len(keys)
    position = (*(value.isoformat() for value in last[:-width]), key_text(last[-width:]))
    return [row[-width:] for row in rows], replace(walk, position=position, is_over=len(rows) < stretch.count)


async def split_keys(session: AsyncSession, stretch: Stretch, parts: int) -> list[Walk]:
    """Return what is left of a walk by a key of one column as several walks, each with about as many due rows.

    Nothing is locked. The table is read once in the order of its key.

    Args:
        session: nothing is written.
        stretch: where the walk stands; its count is that of the due rows that are left.
        parts: how many walks; there are fewer where there are fewer due rows.
    """
    (key,) = key_columns(stretch.table)
    dialect, rows_a_part = session.get_bind().dialect.name, max(1, -(-stretch.count // parts))
    bounds = [stretch.walk.position]
    query = select(key).where(is_due(stretch.table, stretch.before)).order_by(key).limit(1).offset(rows_a_part - 1)
    for dialect_name in MYSQL_DIALECTS:  # it would sort the due rows by their keys for each bound
        query = query.with_hint(stretch.table, "FORCE INDEX (PRIMARY)", dialect_name)
    while len(bounds) < parts:
        lower = parse_key(stretch.table, bounds[-1][0]) if bounds[-1] else ()
        rest = query.where(_behind([key], lower, dialect)) if lower else query
        bound = (await session.execute(rest)).one_or_none()
        if bound is None:
            break
        bounds.append((key_text(tuple(bound)),))
    return [Walk("keys", lower, end=upper) for lower, upper in pairwise([*bounds, stretch.walk.end])]


async def find_deletions(session: AsyncSession, shape: Shape, stretch: Stretch) -> tuple[ByDeletions, Walk]:
    """Return the next due rows of a walk by deletions as a range of its index, and the walk behind them."""
    table, walk = stretch.table, stretch.walk
    leading: list[Column[Any]] = [table.c.deleted_at, *key_columns(table)]
    no_key = (None,) * (len(leading) - 1)
    lower = tuple(_values(table, walk)) if walk.position else (_BEFORE_ALL, *no_key)
    rest = ByDeletions(lower, (stretch.before, *no_key), stretch.before)

    def build() -> AnySelect:
        places = [column.label(f"place_{number}") for number, column in enumerate(leading)]
        query = select(*places).where(rest.of(table, "postgresql")).order_by(*leading)
        return query.limit(1).offset(bindparam("between", type_=Integer()))

    found = await run_kept(session, shape, rest, what="last of deletions", build=build, between=stretch.count - 1)
    row = found.one_or_none()
    if row is None:
        return rest, Walk(walk.kind, walk.position, is_over=True)
    upper = tuple(row)
    return replace(rest, upper=upper), Walk(walk.kind, (upper[0].isoformat(), key_text(upper[1:])))


async def lock_due(session: AsyncSession, table: Table, chosen: Chosen) -> list[Key]:
    """Lock chosen rows, without those that others have locked; returns their keys."""
    query = select(*key_columns(table)).where(chosen.of(table, session.get_bind().dialect.name))
    return [tuple(row) for row in await session.execute(query.with_for_update(skip_locked=True), chosen.values)]


def _values(table: Table, walk: Walk) -> list[Any]:
    *deleted_at, key = walk.position
    return [*map(datetime.fromisoformat, deleted_at), *parse_key(table, key)]


def _behind(columns: Sequence[Column[Any]], values: Sequence[Any], dialect: str) -> ColumnElement[bool]:
    typed = [literal(value, column.type) for column, value in zip(columns, values, strict=True)]
    if len(columns) == 1:
        return columns[0] > typed[0]
    if dialect in {"postgresql", "sqlite"}:
        return tuple_(*columns) > tuple_(*typed)
    # MySQL and MariaDB use no index for a comparison of rows.
    steps = [
        and_(*(columns[before] == typed[before] for before in range(place)), columns[place] > typed[place])
        for place in range(len(columns))
    ]
    return and_(columns[0] >= typed[0], or_(*steps))


async def _estimate_rows(session: AsyncSession, table: Table) -> int:
    dialect = session.get_bind().dialect
    if dialect.name == "postgresql":
        name = dialect.identifier_preparer.format_table(table)
        query = text("SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass(:name)")
        found = int((await session.execute(query, {"name": name})).scalar_one())
        if found >= 0:  # -1: nobody has counted yet
            return found
    elif dialect.name != "sqlite":
        query = text(
            "SELECT table_rows FROM information_schema.tables "
            "WHERE table_schema = coalesce(:schema, database()) AND table_name = :name"
        )
        parameters = {"schema": table.schema, "name": table.name}
        return int((await session.execute(query, parameters)).scalar_one() or 0)
    return int((await session.execute(select(func.count()).select_from(table))).scalar_one())


async def _count_pages(session: AsyncSession, table: Table) -> int:
    name = session.get_bind().dialect.identifier_preparer.format_table(table)
    query = text("SELECT pg_relation_size(to_regclass(:name)) / current_setting('block_size')::bigint")
    return int((await session.execute(query, {"name": name})).scalar_one())
