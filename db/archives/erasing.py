"""Deleting rows for good, wherever they lie, and again when something has brought them back.

Whoever restores an archive, a backup or a copy of the database calls ``erase_again`` before anybody else sees it, and
has a worker do the files: ``archives erase --again``.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, Table, delete, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import existing_archive
from db.archives.cards import card_names
from db.archives.catalog import Catalog
from db.archives.contents import ArchivedRow, Archives, RowsInFiles
from db.archives.erasures import KEYS_A_QUERY, Listing, list_erasures
from db.archives.family import LivingReference, find_family
from db.archives.keys import Key, KeyTextError, key_columns, key_text, parse_key
from db.archives.rows import ByKeys
from db.models import Erasure

_NEVER = datetime.min.replace(tzinfo=UTC)
"""When a row was archived that is not in an archive."""


@dataclass(frozen=True, slots=True)
class Target:
    """A row that is to be erased, with what belongs to it."""

    table: Table
    key: Key
    in_table: tuple[tuple[Table, list[Key]], ...] = ()
    """Rows that are still in their tables; children come first."""
    archived: tuple[ArchivedRow, ...] = ()
    """Rows in archive tables and in files."""
    is_living: bool = False
    """It is in its table and not deleted: nothing of it is to be erased."""
    kept_by: LivingReference | None = None
    """A living row that refers to it: nothing of it is to be erased."""

    @property
    def keys(self) -> dict[Table, list[Key]]:
        """The rows by their tables, each once; the row itself is among them even if it was found nowhere."""
        found: dict[Table, dict[Key, None]] = {self.table: {self.key: None}}
        for table, keys in self.in_table:
            found.setdefault(table, {}).update(dict.fromkeys(keys))
        for row in self.archived:
            found.setdefault(row.table, {})[row.key] = None
        return {table: list(keys) for table, keys in found.items()}

    @property
    def is_absent(self) -> bool:
        """Whether nothing of it was found anywhere."""
        return not (self.in_table or self.archived or self.is_living or self.kept_by)

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be erased, in one line."""
        name = f"{self.table.fullname} {key_text(self.key)}"
        if self.is_living:
            return f"{name} is in its table and not deleted: delete it there first"
        if (by := self.kept_by) is not None:
            other = f"{by.table.fullname} {key_text(by.key)}"
            if by.in_circle:
                return f"{name} and {other} belong to a circle of references: set one of them to NULL first"
            return f"{name} is referred to by {other}, which is not deleted: delete that one first"
        return None


async def find_target(
    session: AsyncSession, archives: Archives, table: Table, key: Key, *, living: bool = False
) -> Target:
    """Look for a row in its table, its archive and the files; with ``archives.lock`` all that is found is locked.

    An archive run or a restore that moves it meanwhile is waited for, and its new place is found.

    Args:
        session: a transaction.
        archives: where to look.
        table: the row's.
        key: the row's.
        living: take it even if it is not deleted, because it should not be there.
    """
    for _ in range(2):
        is_deleted = await _find_in_table(session, archives, table, key)
        found = await archives.find(session, table, [key])
        if is_deleted is not None or found:
            break
    in_table: list[tuple[Table, list[Key]]] = []
    if is_deleted is not None:
        if not (is_deleted or living):
            return Target(table, key, is_living=True)
        family = await find_family(session, archives.catalog, table, [key], lock=archives.lock)
        if family.kept:
            return Target(table, key, kept_by=family.kept[0])
        in_table = [(generation.table, generation.keys) for generation in family.generations]
    cards = [card for one, keys in in_table for card in await read_cards(session, archives.catalog, one, keys)]
    root = found.get(key) or ArchivedRow(table, key, {}, _NEVER)
    record = await archives.record(session, root, all_children=True, others=cards)
    return Target(table, key, tuple(in_table), tuple(row for row in record.rows if row.archived_at is not _NEVER))


async def _find_in_table(session: AsyncSession, archives: Archives, table: Table, key: Key) -> bool | None:
    """Return whether the row in the table is soft-deleted; None: there is none."""
    dialect = session.get_bind().dialect.name
    mark = table.c.is_deleted if archives.catalog.is_soft_deleted(table) else literal(False)
    query = select(mark).select_from(table).where(ByKeys([key]).of(table, dialect))
    if archives.lock and dialect != "sqlite":
        query = query.with_for_update()
    found = (await session.execute(query)).first()
    return None if found is None else bool(found[0])


async def read_cards(session: AsyncSession, catalog: Catalog, table: Table, keys: list[Key]) -> list[ArchivedRow]:
    """Return the cards of rows that are in their table, as of archived ones."""
    names, width = card_names(catalog, table), len(key_columns(table))
    found = []
    for start in range(0, len(keys), KEYS_A_QUERY):
        condition = ByKeys(keys[start : start + KEYS_A_QUERY]).of(table, session.get_bind().dialect.name)
        query = select(*key_columns(table), *[table.c[name] for name in names]).where(condition)
        for row in await session.execute(query):
            card = dict(zip(names, row[width:], strict=True))
            found.append(ArchivedRow(table, tuple(row[:width]), card, _NEVER))
    return found


async def read_families(
    session: AsyncSession, catalog: Catalog, rows: Iterable[tuple[Table, Key]], *, living: bool = False
) -> list[ArchivedRow]:
    """Return the cards of rows that are still in their tables, and of what goes with them; nothing is locked.

    Args:
        session: nothing is written.
        catalog: the mapped tables.
        rows: table and key of each.
        living: as in ``find_target``.
    """
    archives, cards = Archives(catalog, RowsInFiles(), lock=False), list[ArchivedRow]()
    for table, key in rows:
        target = await find_target(session, archives, table, key, living=living)
        for one, keys in target.in_table:
            cards += await read_cards(session, catalog, one, keys)
    return cards


async def erase(session: AsyncSession, target: Target, listing: Listing) -> tuple[dict[str, int], int]:
    """Put a row and what belongs to it on the list, and delete them from the tables and the archive tables.

    What lies in files is on the list from now on, and cannot come back; the files are the caller's to rewrite.

    Args:
        session: the transaction in which the target was found and locked.
        target: one without an obstacle.
        listing: what is written down.

    Returns:
        The rows that were deleted, by table, and how many keys are new on the list.
    """
    new, counts = 0, dict[str, int]()
    for table, keys in target.keys.items():
        new += await list_erasures(session, table, keys, listing)
    for table, keys in target.in_table:
        _add(counts, {table.fullname: await _delete(session, table, keys)})
    in_archives: dict[Table, list[Key]] = {}
    for row in target.archived:  # those found in files may lie in the archive table as well, in an older form
        in_archives.setdefault(row.table, []).append(row.key)
    for table, keys in in_archives.items():
        if (archive := existing_archive(table)) is not None:
            _add(counts, {table.fullname: await _delete(session, archive, keys)})
    return {name: count for name, count in counts.items() if count}, new


async def _delete(session: AsyncSession, side: Table, keys: list[Key]) -> int:
    dialect, gone = session.get_bind().dialect.name, 0
    for start in range(0, len(keys), KEYS_A_QUERY):
        condition = ByKeys(keys[start : start + KEYS_A_QUERY]).of(side, dialect)
        gone += cast("CursorResult[Any]", await session.execute(delete(side).where(condition))).rowcount
    return gone


@dataclass(frozen=True, slots=True)
class ErasedAgain:
    """What the list came to."""

    erased: dict[str, int]
    """Rows that had come back and are gone again, by table."""
    kept: tuple[str, ...]
    """Rows that could not be erased, one line each: living rows refer to them, or no model is mapped to their table."""


async def erase_again(session: AsyncSession, catalog: Catalog, *, files: RowsInFiles | None = None) -> ErasedAgain:
    """Erase from the tables and the archive tables what is on the list and has come back, all in this transaction.

    A row that is on the list goes whether it is soft-deleted or not; what belongs to it goes, too, and on the list.
    A backup brings back its own, older list: ``read_list`` before it is restored, ``merge_list`` after it. The files of
    archives are not touched: ``archives erase --again`` takes out of them what is on the list.

    Args:
        session: a transaction of the restored database.
        catalog: the mapped tables.
        files: what was found in files, where the caller writes them anew: what belongs to it goes, too, and all of it
            on the list.
    """
    archives = Archives(catalog, files or RowsInFiles(), lock=True)
    erased, unreadable = dict[str, int](), list[str]()
    pending = [one async for one in _returned(session, archives, unreadable)]
    while True:
        kept = []
        for table, key, listing in pending:
            target = await find_target(session, archives, table, key, living=True)
            if target.obstacle is not None:
                kept.append((table, key, listing, target.obstacle))
            elif not target.is_absent:
                counts, _ = await erase(session, target, listing)
                _add(erased, counts)
        if not kept or len(kept) == len(pending):
            return ErasedAgain(erased, (*unreadable, *(obstacle for *_, obstacle in kept)))
        pending = [one[:3] for one in kept]  # a living row in the way may have been one of the list


async def _returned(
    session: AsyncSession, archives: Archives, unreadable: list[str]
) -> AsyncIterator[tuple[Table, Key, Listing]]:
    """Yield the rows of the list that are in tables, and those in files to which something may belong."""
    async for table, erasures in read_listed(session, archives.catalog, unreadable):
        there = await find_present(session, table, list(erasures))
        if archives.catalog.references_to(table):
            there |= {key for key in erasures if archives.files.newest(table, key) is not None}
        for key, one in erasures.items():
            if key in there:
                yield table, key, Listing(one.reason, one.erased_at, one.erased_by)


async def read_listed(
    session: AsyncSession, catalog: Catalog, unreadable: list[str]
) -> AsyncIterator[tuple[Table, dict[Key, Erasure]]]:
    """Yield the list, some hundred keys of one table at once.

    Args:
        session: nothing is written.
        catalog: the mapped tables.
        unreadable: gets a line for each key that is of no mapped table, or none of its table.
    """
    tables, last = mapped_tables(catalog), UUID(int=0)
    while page := list(await session.scalars(_PAGE.where(Erasure.id > last))):
        last = page[-1].id
        named: dict[Table, dict[Key, Erasure]] = {}
        for erasure in page:
            try:
                table = tables[erasure.table_name]
                named.setdefault(table, {})[parse_key(table, erasure.row_key)] = erasure
            except KeyError:
                name = f"{erasure.table_name} {erasure.row_key}"
                unreadable.append(f"{name} is on the list but no model is mapped to its table")
            except KeyTextError as problem:
                unreadable.append(f"the erasure list: {problem}")
        for table, erasures in named.items():
            yield table, erasures


_PAGE = select(Erasure).order_by(Erasure.id).limit(KEYS_A_QUERY)


async def find_present(session: AsyncSession, table: Table, keys: list[Key]) -> set[Key]:
    """Return those of these rows that are in their table or its archive table."""
    found: set[Key] = set()
    archive = existing_archive(table)
    for side in (table,) if archive is None else (table, archive):
        columns = [side.c[column.name] for column in key_columns(table)]
        query = select(*columns).where(ByKeys(keys).of(side, session.get_bind().dialect.name))
        found |= {tuple(row) for row in await session.execute(query)}
    return found


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count


def mapped_tables(catalog: Catalog) -> dict[str, Table]:
    """Return every table whose rows may be in an archive, by its full name."""
    related: Iterable[Table] = (one for pair in catalog.references for one in (pair.child, pair.parent))
    return {**{table.fullname: table for table in related}, **catalog.soft_deleted}
