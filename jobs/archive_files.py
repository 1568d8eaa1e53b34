"""Looking into the files of archives. A file is read whole, and nothing of it is used before its SHA-256 is right."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.cards import card_names
from db.archives.catalog import Catalog
from db.archives.contents import ArchivedRow, Archives, PartName, RowsInFiles
from db.archives.keys import Key, key_columns
from db.archives.reading import LineUnreadable, read_line
from db.connection import get_async_session
from db.models import ArchivePart
from jobs.archive_deleted.part_files import PartFile, PartUnreadable, read_part
from jobs.settings import JobSettings

MOST_SOUGHT_IN_TEXT = 8
"""So few values are looked for in a line's text before it is read; of more, reading each line is quicker."""

Wanted = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Part:
    """A listed file."""

    run_id: UUID
    number: int
    table: str
    file: PartFile
    folder: Path
    row: ArchivePart


async def list_parts(session: AsyncSession, settings: JobSettings, tables: Collection[str]) -> list[Part]:
    """Return the files of tables, the oldest first."""
    query = select(ArchivePart).where(ArchivePart.table_name.in_(tables))
    rows = await session.scalars(query.order_by(ArchivePart.written_at, ArchivePart.run_id, ArchivePart.number))
    return [part_of(settings, row) for row in rows]


def part_of(settings: JobSettings, row: ArchivePart) -> Part:
    """Return a listed file and where it lies."""
    file = PartFile(row.file, row.rows, row.bytes, row.sha256)
    return Part(row.run_id, row.number, row.table_name, file, settings.archives_dir / str(row.run_id), row)


async def rows_in_part(
    part: Part, table: Table, wanted: Wanted, *, sought: Collection[str] = (), kept: Collection[str] | None = None
) -> list[ArchivedRow]:
    """Return the rows of a file that are wanted.

    Args:
        part: the file.
        table: its table.
        wanted: whether a row is, by its values.
        sought: texts of which each such row has one, as JSON has them; empty: not known.
        kept: the columns that are returned of each; None: all of them.

    Raises:
        PartUnreadable: it is missing, damaged, or not of this table.
    """
    return await asyncio.to_thread(_rows_in_part, part, table, wanted, sought=sought, kept=kept)


def _rows_in_part(
    part: Part, table: Table, wanted: Wanted, *, sought: Collection[str], kept: Collection[str] | None
) -> list[ArchivedRow]:
    rows, columns = [], [column.name for column in key_columns(table)]
    try:
        for line in lines_of(part):
            if sought and not any(text in line for text in sought):
                continue
            values = read_line(table, line)
            if wanted(values):
                key = tuple(values[name] for name in columns)
                row = ArchivedRow(table, key, values, part.row.written_at, (part.run_id, part.number), line)
                rows.append(row if kept is None else replace(row, values=_some(values, kept), line=""))
    except LineUnreadable as error:
        raise PartUnreadable(f"{part.folder / part.file.name}: {error}") from error
    return rows


def _some(values: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def lines_of(part: Part) -> list[str]:
    """Return the lines of a file, without their ends.

    Raises:
        PartUnreadable: it is missing or damaged.
    """
    return read_part(part.folder, part.file).decode().split("\n")[:-1]


@dataclass(frozen=True, slots=True)
class FoundInFiles:
    """What a look into the files has found."""

    rows: RowsInFiles
    read: dict[PartName, str]
    """The SHA-256 of each file, as it was then."""
    tables: tuple[str, ...]
    """Whose files they are: all of these tables', whether anything was found in them or not."""

    def forget(
        self, taken: Mapping[PartName, Mapping[str, Collection[Key]]], read: Mapping[PartName, str | None]
    ) -> None:
        """Follow what was done to the files, so that they need not be read again.

        Args:
            taken: rows that are in them no longer.
            read: the SHA-256 of those that were written anew; None: it is gone.
        """
        for part, keys_of in taken.items():
            for table, keys in keys_of.items():
                self.rows.remove(part, table, keys)
        for part, sha256 in read.items():
            if sha256 is None:
                self.read.pop(part, None)
            else:
                self.read[part] = sha256


@dataclass(frozen=True, slots=True)
class FileSearch:
    """Looks for rows and what belongs to them in the files of all tables.

    Args:
        settings: where the files are.
        catalog: the mapped tables.
        whole: keep all of each row that is found, and not only its card.
    """

    settings: JobSettings
    catalog: Catalog
    whole: bool = False

    def _family(self, tables: Iterable[Table]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.fullname for table in tables for one in self.catalog.family_of(table)))

    async def has_files(self, tables: Iterable[Table]) -> bool:
        """Whether rows of tables, or what belongs to them, may lie in files."""
        async with get_async_session(read_only=True) as session:
            query = select(ArchivePart.run_id).where(ArchivePart.table_name.in_(self._family(tables))).limit(1)
            return (await session.execute(query)).first() is not None

    async def collect(self, wanted: Mapping[Table, Sequence[Key]], more: Sequence[ArchivedRow] = ()) -> "FoundInFiles":
        """Return the rows of these keys that lie in files, and their children that do, wherever their parents lie.

        Each file is read once for all keys, and again for each generation of parents whose children it may hold.

        Args:
            wanted: the keys, by their tables.
            more: rows whose children are wanted, too.

        Raises:
            PartUnreadable: a file that may hold one of them is missing or damaged.
        """
        names = self._family(wanted)
        async with get_async_session(read_only=True) as session:
            parts = await list_parts(session, self.settings, names)
            found = RowsInFiles()
            read = {(part.run_id, part.number): part.file.sha256 for part in parts}
            if not parts:
                return FoundInFiles(found, read, names)
            archives, frontier = Archives(self.catalog, found, lock=False), list(more)
            for table, keys in wanted.items():
                columns = tuple(column.name for column in key_columns(table))
                await self._scan(parts, table, columns, values=set(keys), found=found)
                frontier += (await archives.find(session, table, keys)).values()
            seen = {(row.table.fullname, row.key) for row in frontier}
            while frontier:
                children = [row async for row in self._children(session, parts, frontier, archives)]
                frontier = [row for row in children if (row.table.fullname, row.key) not in seen]
                seen.update((row.table.fullname, row.key) for row in frontier)
        return FoundInFiles(found, read, names)

    async def _children(
        self, session: AsyncSession, parts: Sequence[Part], parents: Sequence[ArchivedRow], archives: Archives
    ) -> AsyncIterator[ArchivedRow]:
        for table in dict.fromkeys(row.table for row in parents):
            for reference in self.catalog.references_to(table):
                values = {row.of(reference.parent_columns) for row in parents if row.table is table}
                columns = reference.child_columns
                await self._scan(parts, reference.child, columns, values=values, found=archives.files)
                for child in await archives.children(session, reference, values):
                    yield child

    async def _scan(
        self,
        parts: Sequence[Part],
        table: Table,
        columns: tuple[str, ...],
        *,
        values: set[tuple[Any, ...]],
        found: RowsInFiles,
    ) -> None:
        """Find the rows of a table whose columns hold one of these values."""
        sought: list[str] = []
        if len(values) <= MOST_SOUGHT_IN_TEXT and all(isinstance(value[0], UUID) for value in values):
            sought = [str(value[0]) for value in values]
        kept = None if self.whole else card_names(self.catalog, table)

        def wanted(row: Mapping[str, Any]) -> bool:
            return tuple(row.get(column) for column in columns) in values

        for part in parts if values else ():
            if part.table == table.fullname:
                for row in await rows_in_part(part, table, wanted, sought=sought, kept=kept):
                    found.add(row)
