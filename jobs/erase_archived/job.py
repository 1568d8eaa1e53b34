"""Erasing rows: from their table, its archive and its files, one transaction each that also puts them on the list."""

from collections.abc import Sequence

from sqlalchemy import Table

from db.archives.catalog import Catalog
from db.archives.contents import ArchivedRow, Archives
from db.archives.erasing import Target, erase, find_target, mapped_tables, read_families
from db.archives.erasures import Listing
from db.archives.keys import Key, key_text
from db.connection import get_async_session
from db.mixins import now
from holdfast.requests import EraseArchived, EraseReport, RefusedRow
from jobs.archive_files import FileSearch, FoundInFiles
from jobs.archive_leftovers import close_ended_runs
from jobs.archive_parts import lock_parts, take_out, tidying
from jobs.archive_records import RecordWalk, Step, prefixed, read_names, read_types, telling_of_files
from jobs.context import Batch, RunContext
from jobs.erase_archived.again import EraseAgain


async def erase_archived(context: RunContext, request: EraseArchived, *, catalog: Catalog | None = None) -> EraseReport:
    """Erase rows for good, or once more what is on the list.

    Args:
        context: the run.
        request: which rows, and why.
        catalog: the tables that there are; those of the application and its plugins if not given.

    Raises:
        JobFailed: a name is no table or no key, a table is not like its archive, or a file is damaged.
        JobSnoozed: a file belongs to an archive run that is not over.
        RunInterrupted: the worker is about to stop.
        FenceLost: another worker has taken the run over.
    """
    known = catalog or Catalog.of()
    if not request.dry_run:
        with telling_of_files(lambda: "nothing was erased"):
            await close_ended_runs(context.settings, known)  # their leftovers may hold the rows
    erasing = EraseAgain(context, known) if request.again else Erase(context, request, known)
    if request.dry_run:
        return await erasing.look()
    async with tidying(context):
        return await erasing.run()


class Erase:
    """One attempt of a run."""

    def __init__(self, context: RunContext, request: EraseArchived, catalog: Catalog) -> None:
        self._context = context
        self._request = request
        self._catalog = catalog
        self._wanted = read_names(catalog, request.table or "", request.ids)
        self._walk = RecordWalk(context, catalog, self._wanted)

    async def run(self) -> EraseReport:
        """Erase each row that is left, and report."""
        await read_types(self._catalog, self._wanted)
        await self._walk.run(self._find_in_files, self._erase)
        return self._report()

    async def look(self) -> EraseReport:
        """Say what would be erased, and what is in the way."""
        await read_types(self._catalog, self._wanted)
        found, erased = await self._find_in_files(self._wanted.keys), dict[Table, set[Key]]()
        async with get_async_session(read_only=True) as session:
            archives = Archives(self._catalog, found.rows, lock=False)
            for key in self._wanted.keys:
                if key in erased.get(self._wanted.table, ()):
                    continue
                target = await find_target(session, archives, self._wanted.table, key)
                refused = _refused(key, target)
                self._walk.refused += refused
                self._walk.notes += [key_text(key)] if target.is_absent else []
                for table, keys in target.keys.items() if not refused and not target.is_absent else ():
                    erased.setdefault(table, set()).update(keys)
        self._walk.counters = prefixed("erased", {table.fullname: len(keys) for table, keys in erased.items()})
        return self._report()

    async def _find_in_files(self, keys: Sequence[Key]) -> FoundInFiles:
        search, table = FileSearch(self._context.settings, self._catalog), self._wanted.table
        in_tables: list[ArchivedRow] = []
        if await search.has_files([table]):
            async with get_async_session(read_only=True) as session:
                in_tables = await read_families(session, self._catalog, [(table, key) for key in keys])
        return await search.collect({table: keys}, in_tables)

    async def _erase(self, batch: Batch, key: Key, found: FoundInFiles) -> Step:
        session, archives = batch.session, Archives(self._catalog, found.rows, lock=True)
        target = await find_target(session, archives, self._wanted.table, key)
        taken = found.rows.parts_of(target.archived)
        parts = await lock_parts(session, self._context, taken, found)
        if refused := _refused(key, target):
            return Step({}, refused)
        listing = Listing(self._request.reason, now(), self._request.erased_by)
        counts, listed = await erase(session, target, listing)
        in_files = {
            table.fullname: len({row.key for row in target.archived if row.table is table and row.part is not None})
            for table in target.keys
        }
        files = await take_out(session, self._context, parts, taken=taken, tables=mapped_tables(self._catalog))
        total = {name: counts.get(name, 0) + in_files.get(name, 0) for name in counts.keys() | in_files.keys()}
        counters = prefixed("erased", {name: count for name, count in sorted(total.items()) if count})
        notes = [key_text(key)] if target.is_absent else []
        return Step(
            counters | {"listed": listed, "files": len(files.old)},
            notes=notes,
            files=files,
            members=target.keys[self._wanted.table],
        )

    def _report(self) -> EraseReport:
        return EraseReport(
            erased=self._walk.counted("erased"),
            listed=self._walk.counters.get("listed", 0),
            absent=tuple(self._walk.notes),
            files=self._walk.counters.get("files", 0),
            refused=tuple(self._walk.refused),
            duration_s=self._walk.elapsed_s,
            dry_run=self._request.dry_run,
        )


def _refused(key: Key, target: Target) -> list[RefusedRow]:
    if target.obstacle is None:
        return []
    return [
        RefusedRow(key=key_text(key), code="living" if target.is_living else "referred_to", message=target.obstacle)
    ]
