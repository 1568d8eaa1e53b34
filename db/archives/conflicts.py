"""What stands in the way of a row that is to come back: each conflict by name, before anything is written."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.cards import unique_sets
from db.archives.catalog import Reference
from db.archives.contents import KEYS_A_QUERY, ArchivedRow, Archives, Record
from db.archives.keys import key_columns, key_text
from db.archives.rows import among_keys

NAMED_AT_MOST = 20
"""Conflicts that are named of one record."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why a record cannot come back."""

    code: str
    """``exists``, ``unique``, ``parent_missing``, ``erased``, ``not_archived`` or what the database refused."""
    table: str
    key: str
    message: str
    """One line: which row, what is in the way, what to do."""


async def find_conflicts(
    session: AsyncSession, archives: Archives, record: Record, brought: Iterable[ArchivedRow] = ()
) -> list[Conflict]:
    """Return what stands in the way of a record, at most ``NAMED_AT_MOST``.

    Args:
        session: nothing is written.
        archives: where its rows were found.
        record: what is to come back.
        brought: rows that are not in their tables yet, but will be before it.
    """
    look, conflicts = _Look(session, archives, [*record.rows, *brought]), list[Conflict]()
    for table, rows in by_table(record.rows).items():
        conflicts += await look.for_taken_keys(table, rows)
        for columns in unique_sets(table):
            conflicts += await look.for_taken_values(table, rows, columns)
        for reference in archives.catalog.references_of(table):
            conflicts += await look.for_missing_parents(reference, rows)
    return conflicts[:NAMED_AT_MOST]


def by_table(rows: Iterable[ArchivedRow]) -> dict[Table, list[ArchivedRow]]:
    """Return rows by their table, in their order."""
    found: dict[Table, list[ArchivedRow]] = {}
    for row in rows:
        found.setdefault(row.table, []).append(row)
    return found


@dataclass(frozen=True, slots=True)
class _Look:
    session: AsyncSession
    archives: Archives
    coming: Sequence[ArchivedRow]

    async def for_taken_keys(self, table: Table, rows: Sequence[ArchivedRow]) -> list[Conflict]:
        names = [column.name for column in key_columns(table)]
        more = ["is_deleted"] if self.archives.catalog.is_soft_deleted(table) else []
        conflicts = []
        for found in await self._in_table(table, names, [row.key for row in rows], more):
            key = key_text(found[: len(names)])
            how = ", soft-deleted: take its mark away there" if more and found[-1] else ""
            conflicts.append(_conflict("exists", table, key, f"is in its table already{how}"))
        return conflicts

    async def for_taken_values(
        self, table: Table, rows: Sequence[ArchivedRow], columns: tuple[str, ...]
    ) -> list[Conflict]:
        owners: dict[tuple[Any, ...], ArchivedRow] = {}
        conflicts = []
        for row in rows:
            values = row.of(columns)
            if None not in values and values in owners:
                holder = f"{table.fullname} {key_text(owners[values].key)}, which would come back with it"
                conflicts.append(_taken(row, columns, holder))
            elif None not in values:
                owners[values] = row
        keys = [column.name for column in key_columns(table)]
        for found in await self._in_table(table, list(columns), list(owners), keys):
            owner = owners.get(found[: len(columns)])
            holder = f"{table.fullname} {key_text(found[len(columns) :])}"
            # What the engine alone calls equal is refused by it.
            conflicts += [_taken(owner, columns, holder)] if owner is not None else []
        return conflicts

    async def for_missing_parents(self, reference: Reference, rows: Sequence[ArchivedRow]) -> list[Conflict]:
        brought = {row.of(reference.parent_columns) for row in self.coming if row.table is reference.parent}
        wanted: dict[tuple[Any, ...], ArchivedRow] = {}
        for row in rows:
            values = row.of(reference.child_columns)
            if None not in values and values not in brought:
                wanted.setdefault(values, row)
        there = set(await self._in_table(reference.parent, list(reference.parent_columns), list(wanted), []))
        missing = [values for values in wanted if values not in there]
        return [await self._missing(reference, wanted[values], values) for values in missing[:NAMED_AT_MOST]]

    async def _missing(self, reference: Reference, row: ArchivedRow, values: tuple[Any, ...]) -> Conflict:
        parent, is_archived = f"{reference.parent.fullname} {key_text(values)}", False
        if tuple(column.name for column in key_columns(reference.parent)) == reference.parent_columns:
            is_archived = bool(await self.archives.find(self.session, reference.parent, [values]))
        advice = f"it is in an archive: restore {parent}" if is_archived else "it is in no archive: make it first"
        text = f": its {', '.join(reference.child_columns)} refers to {parent}, which is not there; {advice}"
        return _conflict("parent_missing", row.table, key_text(row.key), text)

    async def _in_table(
        self, table: Table, columns: list[str], values: Sequence[tuple[Any, ...]], more: list[str]
    ) -> list[tuple[Any, ...]]:
        """Return the table's rows that hold one of these values: the columns, and then more."""
        dialect = self.session.get_bind().dialect.name
        compared = [table.c[name] for name in columns]
        query = select(*compared, *[table.c[name] for name in more])
        found: list[tuple[Any, ...]] = []
        for start in range(0, len(values), KEYS_A_QUERY):
            condition = among_keys(compared, values[start : start + KEYS_A_QUERY], dialect)
            found += [tuple(row) for row in await self.session.execute(query.where(condition))]
        return found


def _taken(row: ArchivedRow, columns: tuple[str, ...], holder: str) -> Conflict:
    pairs = zip(columns, row.of(columns), strict=True)
    shown = ", ".join(f"{name} {str(value)[:80]!r}" for name, value in pairs)
    text = f": its {shown} is taken by {holder}: change or delete that one first"
    return _conflict("unique", row.table, key_text(row.key), text)


def _conflict(code: str, table: Table, key: str, text: str) -> Conflict:
    space = "" if text.startswith(":") else " "
    return Conflict(code, table.fullname, key, f"{table.fullname} {key}{space}{text}")
