"""Erasing once more what is on the list and has come back: from the tables in one transaction, then file by file."""

import time
from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.catalog import Catalog
from db.archives.contents import PartName, RowsInFiles
from db.archives.erasing import erase_again, find_present, mapped_tables, read_families, read_listed
from db.archives.erasures import find_erasures
from db.archives.keys import Key
from db.connection import get_reading_session
from holdfast.progress import Progress
from holdfast.requests import EraseReport, RefusedRow
from jobs.archive_deleted.state import added
from jobs.archive_files import FileSearch, FoundInFiles
from jobs.archive_parts import PartsChanged, begin_again, lock_parts, settle, take_out
from jobs.archive_records import Patience, counted, prefixed, telling_of_files
from jobs.context import Batch, RunContext

KeysByTable = Mapping[str, set[Key]]


class EraseAgain:
    """One attempt of a run.

    All that is to go from files is on the list before the first of them is written anew: an attempt that dies leaves
    nothing that the next one does not find by the list, and that one begins anew with what is left.
    """

    def __init__(self, context: RunContext, catalog: Catalog) -> None:
        self._context = context
        self._catalog = catalog
        self._tables = mapped_tables(catalog)
        self._search = FileSearch(context.settings, catalog)
        self._counters: dict[str, int] = {}
        self._kept: tuple[str, ...] = ()
        self._began = time.monotonic()

    async def run(self) -> EraseReport:
        """Erase what is left, and report."""
        await self._resume()
        patience = Patience()
        with telling_of_files(lambda: f"{self._counters.get('files', 0)} files were done"):
            while True:
                try:
                    found = await self._look()
                    await self._erase_in_tables(found)
                    await self._erase_in_files(found, patience)
                    return self._report(dry_run=False)
                except PartsChanged as error:
                    patience.lose(error)

    async def look(self) -> EraseReport:
        """Say what would be erased."""
        with telling_of_files(lambda: "it was a dry run"):
            found = await self._look()
        async with self._context.batch(discard=True) as batch:
            again = await erase_again(batch.session, self._catalog, files=found.rows)
            self._kept, self._counters = again.kept, prefixed("erased", again.erased)
            for keys_of in found.rows.parts.values():
                self._counters = added(self._counters, _counts(await self._listed(batch.session, keys_of)))
        return self._report(dry_run=True)

    async def _look(self) -> FoundInFiles:
        """Return what lies in files of the rows that are on the list, and what belongs to these."""
        if not await self._search.has_files(self._tables.values()):
            return FoundInFiles(RowsInFiles(), {}, tuple(self._tables))
        listed, in_tables = dict[Table, list[Key]](), list[tuple[Table, Key]]()
        async with get_reading_session() as session:
            async for table, erasures in read_listed(session, self._catalog, unreadable=[]):
                listed.setdefault(table, []).extend(erasures)
                in_tables += [(table, key) for key in await find_present(session, table, list(erasures))]
            families = await read_families(session, self._catalog, in_tables, living=True)
        return await self._search.collect(listed, families)

    async def _erase_in_tables(self, found: FoundInFiles) -> None:
        async with self._context.batch() as batch:
            again = await erase_again(batch.session, self._catalog, files=found.rows)
            await lock_parts(batch.session, self._context, (), found)  # what went to files meanwhile was not seen there
            self._kept = again.kept
            self._write(batch, prefixed("erased", again.erased), old_files=[])
        self._counters = batch.counters

    async def _erase_in_files(self, found: FoundInFiles, patience: Patience) -> None:
        parts = found.rows.parts
        for number, (name, keys_of) in enumerate(parts.items(), start=1):
            await self._erase_in_file(found, name, keys_of)
            patience.renew()
            progress = Progress(done=number, total=len(parts), unit="files", counters=self._counters)
            await self._context.report_progress(progress)
            if number < len(parts):
                self._context.stop_if_asked()

    async def _erase_in_file(self, found: FoundInFiles, name: PartName, keys_of: KeysByTable) -> None:
        async with self._context.batch() as batch:
            listed = await self._listed(batch.session, keys_of)
            if not listed:
                return
            # What is on the list is in no table that it could leave for a new file: those need no look.
            parts = await lock_parts(batch.session, self._context, [name], replace(found, tables=()))
            files = await take_out(batch.session, self._context, parts, taken={name: listed}, tables=self._tables)
            self._write(batch, _counts(listed), old_files=files.old)
        self._counters = batch.counters
        await settle(self._context, files.old)
        found.forget(files.taken, files.read)

    async def _listed(self, session: AsyncSession, keys_of: KeysByTable) -> dict[str, set[Key]]:
        """Return those rows that are on the list; not so what belongs to a row that could not be erased."""
        listed = {
            table: set(await find_erasures(session, self._tables[table], list(keys))) for table, keys in keys_of.items()
        }
        return {table: keys for table, keys in listed.items() if keys}

    def _write(self, batch: Batch, more: dict[str, int], *, old_files: list[str]) -> None:
        batch.counters = added(self._counters, more)
        batch.cursor = {"old_files": old_files, "elapsed_s": self._elapsed_s}

    async def _resume(self) -> None:
        checkpoint = await self._context.checkpoint()
        self._counters = dict(checkpoint.counters)
        # A version that knew nothing of files wrote neither.
        self._began -= float(checkpoint.cursor.get("elapsed_s", 0.0))
        await begin_again(self._context, checkpoint.cursor.get("old_files", []))

    @property
    def _elapsed_s(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def _report(self, *, dry_run: bool) -> EraseReport:
        refused = [RefusedRow(key="", code="kept", message=message) for message in self._kept]
        return EraseReport(
            erased=counted(self._counters, "erased"),
            files=self._counters.get("files", 0),
            refused=tuple(refused),
            duration_s=self._elapsed_s,
            dry_run=dry_run,
        )


def _counts(listed: KeysByTable) -> dict[str, int]:
    """Return what goes with the rows of one file as counters of the run."""
    return prefixed("erased", {table: len(keys) for table, keys in listed.items()}) | {"files": int(bool(listed))}
