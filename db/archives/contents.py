"""What lies in archives: rows, and what belongs to them by the mapped foreign keys.

Of a row in an archive table only its *card* is read: its keys, what it refers to, and when it was deleted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Column, Table, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import ARCHIVED_AT, existing_archive
from db.archives.cards import card_names
from db.archives.catalog import Catalog, Reference
from db.archives.keys import Key, key_columns
from db.archives.rows import among_keys

KEYS_A_QUERY = 1_000
TOGETHER = timedelta(minutes=1)
"""Rows that were deleted within a minute of their parent were deleted with it: code that cascades by itself deletes
the children first, or last, and each at an instant of its own."""

PartName = tuple[UUID, int]
"""A file of an archive: the run that wrote it, and its number."""


@dataclass(frozen=True, slots=True, eq=False)
class ArchivedRow:
    """A row in an archive."""

    table: Table
    key: Key
    values: Mapping[str, Any]
    """The card of a row in an archive table; the whole of one in a file."""
    archived_at: datetime
    part: PartName | None = None
    """The file that it lies in; None: the archive table."""
    line: str = ""
    """Its line there."""

    def of(self, columns: Sequence[str]) -> tuple[Any, ...]:
        """Return the values of some columns; those that the row had not when it was archived are None."""
        return tuple(self.values.get(column) for column in columns)


@dataclass(slots=True)
class RowsInFiles:
    """The rows that were found in files."""

    copies: dict[tuple[str, Key], list[ArchivedRow]] = field(default_factory=dict)
    """By table and key, the oldest first; more than one only where somebody has copied files."""
    _by_parent: dict[Reference, dict[tuple[Any, ...], list[ArchivedRow]]] = field(default_factory=dict)
    """The newest copies by what they refer to; made when it is asked for, and forgotten with each change."""

    def add(self, row: ArchivedRow) -> None:
        """Add a row, once."""
        self._by_parent.clear()
        known = self.copies.setdefault((row.table.fullname, row.key), [])
        if all(one.part != row.part for one in known):
            known.append(row)
            known.sort(key=lambda one: one.archived_at)

    def remove(self, part: PartName, table: str, keys: Iterable[Key]) -> None:
        """Remove rows that do not lie in a file any more."""
        self._by_parent.clear()
        for key in keys:
            copies = self.copies.get((table, key), [])
            copies[:] = [one for one in copies if one.part != part]
            if not copies:
                self.copies.pop((table, key), None)

    def newest(self, table: Table, key: Key) -> ArchivedRow | None:
        """Return the row of this key."""
        copies = self.copies.get((table.fullname, key))
        return copies[-1] if copies else None

    def children(self, reference: Reference, parents: Iterable[tuple[Any, ...]]) -> list[ArchivedRow]:
        """Return the rows that refer to one of these parents."""
        if (by_parent := self._by_parent.get(reference)) is None:
            by_parent, name = self._by_parent.setdefault(reference, {}), reference.child.fullname
            for (table, _), copies in self.copies.items():
                if table == name:
                    by_parent.setdefault(copies[-1].of(reference.child_columns), []).append(copies[-1])
        return [row for values in dict.fromkeys(parents) for row in by_parent.get(values, ())]

    @property
    def parts(self) -> dict[PartName, dict[str, set[Key]]]:
        """All of them, by the files in which they lie: file -> table -> keys."""
        return self.parts_of(copies[-1] for copies in self.copies.values())

    def parts_of(self, rows: Iterable[ArchivedRow]) -> dict[PartName, dict[str, set[Key]]]:
        """Return the files in which these rows lie, in whatever copy: file -> table -> keys."""
        found: dict[PartName, dict[str, set[Key]]] = {}
        for row in rows:
            for copy in self.copies.get((row.table.fullname, row.key), ()):
                if copy.part is not None:
                    found.setdefault(copy.part, {}).setdefault(row.table.fullname, set()).add(row.key)
        return found


@dataclass(slots=True)
class Record:
    """A row in an archive and what belongs to it."""

    root: ArchivedRow
    generations: list[list[ArchivedRow]]
    """The rows, the root among them; what others refer to stands in an earlier generation."""
    stayed: list[ArchivedRow]
    """Children that were deleted by themselves, not with their parent."""

    @property
    def rows(self) -> list[ArchivedRow]:
        """Every row, parents first."""
        return [row for generation in self.generations for row in generation]


@dataclass(frozen=True, slots=True)
class Archives:
    """Where rows are looked for, and how.

    Args:
        catalog: the mapped tables.
        files: what was read from files before.
        lock: lock what is found in archive tables.
    """

    catalog: Catalog
    files: RowsInFiles
    lock: bool

    async def find(self, session: AsyncSession, table: Table, keys: Sequence[Key]) -> dict[Key, ArchivedRow]:
        """Return the rows of these keys that lie in an archive; of two with one key the newer one."""
        found: dict[Key, ArchivedRow] = {}
        if (archive := existing_archive(table)) is not None:
            columns = [archive.c[column.name] for column in key_columns(table)]
            found = {row.key: row for row in await self._read(session, table, columns, keys)}
        for key in keys:
            row = self.files.newest(table, key)
            if row is not None and (key not in found or found[key].archived_at < row.archived_at):
                found[key] = row
        return found

    async def children(
        self, session: AsyncSession, reference: Reference, parents: Iterable[tuple[Any, ...]]
    ) -> list[ArchivedRow]:
        """Return the archived rows whose columns hold what a reference points at.

        Args:
            session: for the archive tables.
            reference: the foreign key.
            parents: the values of its ``parent_columns``.
        """
        wanted = [values for values in dict.fromkeys(parents) if None not in values]
        found: dict[Key, ArchivedRow] = {}
        if wanted and (archive := existing_archive(reference.child)) is not None:
            columns = [archive.c[name] for name in reference.child_columns]
            found = {row.key: row for row in await self._read(session, reference.child, columns, wanted)}
        for row in self.files.children(reference, wanted):
            if row.key not in found or found[row.key].archived_at < row.archived_at:
                found[row.key] = row
        return list(found.values())

    async def _read(
        self, session: AsyncSession, table: Table, columns: Sequence[Column[Any]], values: Sequence[tuple[Any, ...]]
    ) -> list[ArchivedRow]:
        archive = existing_archive(table)
        assert archive is not None  # noqa: S101 - asked before
        dialect, names = session.get_bind().dialect.name, card_names(self.catalog, table)
        query = select(*[archive.c[name] for name in names], archive.c[ARCHIVED_AT].label("holdfast_archived_at"))
        if self.lock and dialect != "sqlite":
            query = query.with_for_update()
        found = []
        for start in range(0, len(values), KEYS_A_QUERY):
            some = query.where(among_keys(columns, values[start : start + KEYS_A_QUERY], dialect))
            for row in await session.execute(some):
                card = dict(zip(names, row[:-1], strict=True))
                key = tuple(card[column.name] for column in key_columns(table))
                found.append(ArchivedRow(table, key, card, row[-1]))
        return found

    async def record(
        self, session: AsyncSession, root: ArchivedRow, *, all_children: bool, others: Sequence[ArchivedRow] = ()
    ) -> Record:
        """Return a row with what belongs to it in the archives.

        Args:
            session: for the archive tables.
            root: the row.
            all_children: those, too, that were deleted by themselves.
            others: further rows to begin with; they are not part of the record.
        """
        members: dict[tuple[str, Key], ArchivedRow] = {(root.table.fullname, root.key): root}
        begun = {(row.table.fullname, row.key) for row in others}
        stayed: dict[tuple[str, Key], ArchivedRow] = {}
        frontier: list[tuple[ArchivedRow, datetime | None]] = [
            (row, row.values.get("deleted_at")) for row in (root, *others)
        ]
        while frontier:
            found = [pair for reference, rows in self._references(frontier)
                     for pair in await self._followers(session, reference, rows)]  # fmt: skip
            frontier = []
            for child, deleted_at in found:
                name = (child.table.fullname, child.key)
                if name in members or name in begun:
                    continue
                own = child.values.get("deleted_at")
                if all_children or _deleted_together(own, deleted_at):
                    members[name] = child
                    stayed.pop(name, None)
                    frontier.append((child, own or deleted_at))
                else:
                    stayed[name] = child
        return Record(root, parents_first(self.catalog, list(members.values())), list(stayed.values()))

    def _references(
        self, rows: Sequence[tuple[ArchivedRow, datetime | None]]
    ) -> list[tuple[Reference, list[tuple[ArchivedRow, datetime | None]]]]:
        by_table: dict[Table, list[tuple[ArchivedRow, datetime | None]]] = {}
        for pair in rows:
            by_table.setdefault(pair[0].table, []).append(pair)
        return [
            (reference, of_table)
            for table, of_table in by_table.items()
            for reference in self.catalog.references_to(table)
        ]

    async def _followers(
        self, session: AsyncSession, reference: Reference, parents: list[tuple[ArchivedRow, datetime | None]]
    ) -> list[tuple[ArchivedRow, datetime | None]]:
        deleted_at = {row.of(reference.parent_columns): at for row, at in parents}
        children = await self.children(session, reference, deleted_at)
        return [(child, deleted_at.get(child.of(reference.child_columns))) for child in children]


def _deleted_together(child: datetime | None, parent: datetime | None) -> bool:
    return child is None or parent is None or abs(child - parent) <= TOGETHER


def parents_first(catalog: Catalog, rows: Sequence[ArchivedRow]) -> list[list[ArchivedRow]]:
    """Return rows in generations: each refers to rows of earlier ones only. What refers in a circle comes last."""
    by_values = _by_values(catalog, rows)
    waiting = {(row.table.fullname, row.key): (row, _parents_among(catalog, row, by_values)) for row in rows}
    generations, placed = list[list[ArchivedRow]](), set[_Name]()
    while waiting:
        free = [name for name, (_, parents) in waiting.items() if parents <= placed] or list(waiting)
        generations.append([waiting.pop(name)[0] for name in free])
        placed.update(free)
    return generations


_Name = tuple[str, Key]
_Place = tuple[str, tuple[str, ...], tuple[Any, ...]]


def _by_values(catalog: Catalog, rows: Sequence[ArchivedRow]) -> dict[_Place, _Name]:
    found: dict[_Place, _Name] = {}
    for row in rows:
        for reference in catalog.references_to(row.table):
            columns = reference.parent_columns
            found[row.table.fullname, columns, row.of(columns)] = (row.table.fullname, row.key)
    return found


def _parents_among(catalog: Catalog, row: ArchivedRow, by_values: Mapping[_Place, _Name]) -> set[_Name]:
    parents = set()
    for reference in catalog.references_of(row.table):
        place = (reference.parent.fullname, reference.parent_columns, row.of(reference.child_columns))
        parent = by_values.get(place)
        if parent is not None and parent != (row.table.fullname, row.key):
            parents.add(parent)
    return parents
