"""Bringing rows back: find each with what belongs to it, refuse on conflicts, move it in one transaction."""

from collections import Counter
from collections.abc import Iterable, Sequence

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.catalog import Catalog
from db.archives.conflicts import by_table, find_conflicts
from db.archives.contents import ArchivedRow, Archives, Record
from db.archives.erasing import Target, erase, mapped_tables
from db.archives.erasures import Listing, find_erasures
from db.archives.keys import Key, key_text
from db.archives.returning import bring_back
from db.archives.rows import ProofFailed
from db.connection import get_async_session
from db.mixins import now
from holdfast.requests import RefusedRow, RestoreArchived, RestoreReport
from jobs.archive_files import FileSearch, FoundInFiles
from jobs.archive_parts import PartsChanged, lock_parts, take_out, tidying
from jobs.archive_records import RecordWalk, Step, prefixed, read_names, read_types
from jobs.context import Batch, RunContext
from jobs.outcomes import JobFailed


async def restore_archived(
    context: RunContext, request: RestoreArchived, *, catalog: Catalog | None = None
) -> RestoreReport:
    """Bring rows back from the archives.

    Args:
        context: the run.
        request: which rows.
        catalog: the tables that there are; those of the application and its plugins if not given.

    Raises:
        JobFailed: a name is no table or no key, a table is not like its archive, or a file is damaged.
        JobSnoozed: a file belongs to an archive run that is not over.
        RunInterrupted: the worker is about to stop.
        FenceLost: another worker has taken the run over.
    """
    restore = Restore(context, request, catalog or Catalog.of())
    if request.dry_run:
        return await restore.look()
    async with tidying(context):
        return await restore.run()


class Restore:
    """One attempt of a run."""

    def __init__(self, context: RunContext, request: RestoreArchived, catalog: Catalog) -> None:
        self._context = context
        self._request = request
        self._catalog = catalog
        self._wanted = read_names(catalog, request.table, request.ids)
        self._walk = RecordWalk(context, catalog, self._wanted)
        self._types: dict[str, dict[str, str]] = {}

    async def run(self) -> RestoreReport:
        """Restore each row that is left, and report."""
        self._types = await read_types(self._catalog, self._wanted)
        try:
            await self._walk.run(self._find_in_files, self._restore)
        except ProofFailed as error:
            raise JobFailed("proof_failed", f"{error}; look for triggers on the table or its archive") from error
        return self._report()

    async def look(self) -> RestoreReport:
        """Say what would come back, and what is in the way."""
        await read_types(self._catalog, self._wanted)
        found, counters = await self._find_in_files(self._wanted.keys), Counter[str]()
        table, brought, refused = self._wanted.table, dict[tuple[Table, Key], ArchivedRow](), list[RefusedRow]()
        async with get_async_session(read_only=True) as session:
            archives = Archives(self._catalog, found.rows, lock=False)
            for key in self._wanted.keys:
                if (table, key) in brought:
                    continue
                record = await self._find(session, archives, key)
                if record is not None:
                    await _leave_out_erased(session, archives, record)
                problems = await self._refuse(session, archives, key, record, brought=brought.values())
                refused += problems
                if record is not None and not problems:
                    counters.update(_counts(record))
                    brought |= {(row.table, row.key): row for row in record.rows}
        came = {key_text(key) for one, key in brought if one is table}
        self._walk.refused = [row for row in refused if row.key not in came]
        self._walk.counters = dict(counters)
        return self._report()

    async def _find_in_files(self, keys: Sequence[Key]) -> FoundInFiles:
        return await FileSearch(self._context.settings, self._catalog, whole=True).collect({self._wanted.table: keys})

    async def _restore(self, batch: Batch, key: Key, found: FoundInFiles) -> Step:
        session, archives = batch.session, Archives(self._catalog, found.rows, lock=True)
        record = await self._find(session, archives, key)
        erased = [] if record is None else await _leave_out_erased(session, archives, record)
        gone = [row for target, _ in erased for row in target.archived]
        rows = [] if record is None else record.rows
        parts = await lock_parts(session, self._context, found.rows.parts_of([*rows, *gone]), found)
        # Looked at again: whoever erases these rows from now on waits here.
        if record is not None and await _leave_out_erased(session, archives, record):
            raise PartsChanged(f"rows of {key_text(key)} are on the erasure list now")
        for target, listing in erased:
            await erase(session, target, listing)
        refused = await self._refuse(session, archives, key, record)
        counts, members = dict[str, int](), list[Key]()
        if not refused and record is not None:
            counts = _counts(record)
            members = [row.key for row in record.rows if row.table is self._wanted.table]
            await bring_back(session, self._catalog, record, now=now(), types=self._types)
            gone += record.rows
        taken, tables = found.rows.parts_of(gone), mapped_tables(self._catalog)
        parts = [part for part in parts if (part.run_id, part.number) in taken]
        files = await take_out(session, self._context, parts, taken=taken, tables=tables)
        return Step(counts, refused, files=files, members=members)

    async def _find(self, session: AsyncSession, archives: Archives, key: Key) -> Record | None:
        root = (await archives.find(session, self._wanted.table, [key])).get(key)
        if root is None:
            return None
        return await archives.record(session, root, all_children=self._request.all_children)

    async def _refuse(
        self,
        session: AsyncSession,
        archives: Archives,
        key: Key,
        record: Record | None,
        *,
        brought: Iterable[ArchivedRow] = (),
    ) -> list[RefusedRow]:
        """Return why a record cannot come back; ``brought`` are rows of others that would be there by then."""
        table = self._wanted.table
        if (erasure := (await find_erasures(session, table, [key])).get(key)) is not None:
            message = f"{table.fullname} {key_text(key)} was erased for good on {erasure.erased_at:%Y-%m-%d}"
            return [_refused(key, "erased", f"{message} ({erasure.reason}): it does not come back")]
        if record is None:
            message = f"{table.fullname} {key_text(key)} is in no archive: look with: archives search {table.fullname}"
            return [_refused(key, "not_archived", message)]
        conflicts = await find_conflicts(session, archives, record, brought)
        return [_refused(key, conflict.code, conflict.message) for conflict in conflicts]

    def _report(self) -> RestoreReport:
        return RestoreReport(
            restored=self._walk.counted("restored"),
            stayed=self._walk.counted("stayed"),
            refused=tuple(self._walk.refused),
            duration_s=self._walk.elapsed_s,
            dry_run=self._request.dry_run,
        )


async def _leave_out_erased(session: AsyncSession, archives: Archives, record: Record) -> list[tuple[Target, Listing]]:
    """Take rows out that are on the erasure list, with all that belongs to them: something has put them back.

    Returns:
        What is to be erased again.
    """
    erased = []
    for table, rows in by_table(record.rows).items():
        by_key = {row.key: row for row in rows}
        for key, erasure in (await find_erasures(session, table, list(by_key))).items():
            whole = await archives.record(session, by_key[key], all_children=True)
            names = {(row.table, row.key) for row in whole.rows}
            record.generations = [
                [row for row in one if (row.table, row.key) not in names] for one in record.generations
            ]
            listing = Listing(erasure.reason, erasure.erased_at, erasure.erased_by)
            erased.append((Target(table, key, archived=tuple(whole.rows)), listing))
    return erased


def _counts(record: Record) -> dict[str, int]:
    restored = {table.fullname: len(rows) for table, rows in by_table(record.rows).items()}
    stayed = {table.fullname: len(rows) for table, rows in by_table(record.stayed).items()}
    return prefixed("restored", restored) | prefixed("stayed", stayed)


def _refused(key: Key, code: str, message: str) -> RefusedRow:
    return RefusedRow(key=key_text(key), code=code, message=message)
