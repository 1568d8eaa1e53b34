"""What restoring and erasing share: which rows are meant, and walking through them one transaction each."""

import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, literal, select
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession

import db.models  # noqa: F401 - registers the models
from db.archive_tables import existing_archive
from db.archives.catalog import Catalog, UnknownTable
from db.archives.drift import find_shape
from db.archives.hashing import prepare
from db.archives.keys import Key, KeyTextError, key_text, parse_key
from db.archives.rows import ByKeys
from db.connection import get_async_session
from db.errors import first_line, is_unstorable
from holdfast.progress import Progress
from holdfast.requests import RefusedRow
from jobs.archive_deleted.part_files import FolderUnusable, PartUnreadable
from jobs.archive_files import FoundInFiles
from jobs.archive_parts import RUN_IS_LIVE_S, PartsChanged, TakenOut, begin_again, remove_leftovers, settle
from jobs.context import Batch, RunContext
from jobs.outcomes import JobFailed, JobSnoozed

READ_AGAIN = 5
"""How often files are read again that others change meanwhile, before these are waited for."""


@dataclass(slots=True)
class Patience:
    """How often files have been read again without getting on."""

    tries: int = 0

    def lose(self, error: PartsChanged) -> None:
        """Somebody has changed them meanwhile.

        Raises:
            JobSnoozed: once more than ``READ_AGAIN`` allows.
        """
        self.tries += 1
        if self.tries == READ_AGAIN:
            raise JobSnoozed(RUN_IS_LIVE_S) from error

    def renew(self) -> None:
        """The run has got on."""
        self.tries = 0


@contextmanager
def telling_of_files(done: Callable[[], str]) -> Iterator[None]:
    """End the run where the block cannot use a file.

    Args:
        done: says what was done before.

    Raises:
        JobFailed: a file is damaged, or its folder cannot be written.
    """
    try:
        yield
    except PartUnreadable as error:
        raise JobFailed("part_unreadable", f"{error}; {done()}") from error
    except FolderUnusable as error:
        raise JobFailed("folder_unusable", f"{error}; {done()}: let the worker write there") from error


@dataclass(frozen=True, slots=True)
class Wanted:
    """The rows that a request names."""

    table: Table
    keys: tuple[Key, ...]


def read_names(catalog: Catalog, table: str, ids: Sequence[str]) -> Wanted:
    """Return the rows that a request names; nothing of it has gone near SQL.

    Raises:
        JobFailed: there is no such table, or an id is no key of it.
    """
    try:
        found = catalog.find(table)
        return Wanted(found, tuple(dict.fromkeys(parse_key(found, text) for text in ids)))
    except UnknownTable as error:
        raise JobFailed("unknown_table", str(error)) from error
    except KeyTextError as error:
        raise JobFailed("invalid_key", str(error)) from error


async def read_types(catalog: Catalog, wanted: Wanted) -> dict[str, dict[str, str]]:
    """Return the column types of a table and of all that may belong to its rows.

    Raises:
        JobFailed: a table or its archive is not what the models say, or an id is one that the database cannot hold;
            nothing has been changed.
    """
    types: dict[str, dict[str, str]] = {}
    async with get_async_session(read_only=True) as session:
        for key in wanted.keys:
            await _try_key(session, wanted.table, key)
        for member in catalog.family_of(wanted.table):
            has_archive = existing_archive(member) is not None
            found = await find_shape(session, catalog, member, archived=has_archive, leaves=has_archive)
            if found.problems:
                raise JobFailed("schema_drift", f"{found.problems[0]}; nothing was changed")
            types[member.fullname] = found.shape.types
    return types


async def _try_key(session: AsyncSession, table: Table, key: Key) -> None:
    """Compare the table's key with it: each engine, driver and type has bounds of its own."""
    try:
        await session.execute(select(literal(1)).where(ByKeys([key]).of(table, session.get_bind().dialect.name)))
    except (StatementError, OverflowError) as error:
        if not (isinstance(error, OverflowError) or is_unstorable(error)):
            raise
        message = f"{key_text(key)!r} is no key of {table.fullname}: its type cannot hold it ({first_line(error)})"
        raise JobFailed("invalid_key", message) from error


@dataclass(slots=True)
class Step:
    """What one transaction has done."""

    counts: Mapping[str, int]
    """Added to the run's counters."""
    refused: Sequence[RefusedRow] = ()
    notes: Sequence[str] = ()
    """Added to the run's notes."""
    files: TakenOut | None = None
    """What was done to files."""
    members: Collection[Key] = ()
    """The rows of the request's table that are done with this one, itself among them."""

    @property
    def old_files(self) -> Sequence[str]:
        """Files that were replaced."""
        return () if self.files is None else self.files.old


class RecordWalk:
    """Goes through rows, one transaction each; a worker that dies repeats nothing.

    Args:
        context: the run.
        catalog: the mapped tables.
        wanted: the rows.
    """

    def __init__(self, context: RunContext, catalog: Catalog, wanted: Wanted) -> None:
        self.context = context
        self.catalog = catalog
        self.wanted = wanted
        self.counters: dict[str, int] = {}
        self.refused: list[RefusedRow] = []
        self.notes: list[str] = []
        self._next = 0
        self._done: set[str] = set()  # rows that are still to come, and were done as members of another one's family
        self._found: FoundInFiles | None = None
        self._began = time.monotonic()

    @property
    def elapsed_s(self) -> float:
        """Seconds over all attempts."""
        return round(time.monotonic() - self._began, 3)

    async def run(
        self,
        look: Callable[[Sequence[Key]], Awaitable[FoundInFiles]],
        step: Callable[[Batch, Key, FoundInFiles], Awaitable[Step]],
    ) -> None:
        """Do a step for each row that is left.

        Args:
            look: finds in files what belongs to rows.
            step: does what is to be done to one row, in the batch's transaction.

        Raises:
            JobFailed: a file is damaged; what was done before it is done.
        """
        await self._resume()
        keys, patience = self.wanted.keys, Patience()
        while self._next < len(keys):
            key = keys[self._next]
            if key_text(key) in self._done:
                self._next += 1  # the next commit tells
                await self._publish()
                continue
            try:
                with telling_of_files(lambda: f"{self._next} of {len(keys)} rows were done"):
                    self._found = self._found or await look(keys[self._next :])
                    await self._do(key, step, self._found)
                patience.renew()
            except PartsChanged as error:
                self._found = None
                patience.lose(error)
            except IntegrityError as error:
                name = f"{self.wanted.table.fullname} {key_text(key)}"
                message = f"{name}: the database refused it ({first_line(error)}): look at its rules"
                await self._commit_refused(RefusedRow(key=key_text(key), code="refused", message=message))
                await remove_leftovers(self.context)  # what it wrote for the batch that was refused
            await self._publish()
            if self._next < len(keys):
                self.context.stop_if_asked()

    async def _do(
        self, key: Key, step: Callable[[Batch, Key, FoundInFiles], Awaitable[Step]], found: FoundInFiles
    ) -> None:
        async with self.context.batch() as batch:
            await prepare(batch.session)
            done = await step(batch, key, found)
            self._write(batch, done)
        self._adopt(batch)
        if done.old_files:
            await settle(self.context, done.old_files)
        if done.files is not None:
            found.forget(done.files.taken, done.files.read)

    async def _commit_refused(self, refused: RefusedRow) -> None:
        async with self.context.batch() as batch:
            self._write(batch, Step({}, [refused]))
        self._adopt(batch)

    def _write(self, batch: Batch, done: Step) -> None:
        to_come = set(self.wanted.keys[self._next + 1 :])
        members = {key_text(key) for key in done.members}
        added = {name: batch.counters.get(name, 0) + count for name, count in done.counts.items()}
        batch.counters = batch.counters | added
        batch.cursor = {
            "next": self._next + 1,
            "refused": [row.model_dump() for row in (*self.refused, *done.refused) if row.key not in members],
            "done": sorted(self._done | {key_text(key) for key in done.members if key in to_come}),
            "notes": [*self.notes, *done.notes],
            "old_files": list(done.old_files),
            "elapsed_s": self.elapsed_s,
        }

    def _adopt(self, batch: Batch) -> None:
        """Go on from what is committed."""
        self.counters = dict(batch.counters)
        self._read(batch.cursor)

    def _read(self, cursor: Mapping[str, Any]) -> None:
        self._next = cursor["next"]
        self.refused = [RefusedRow.model_validate(row) for row in cursor["refused"]]
        self.notes = list(cursor["notes"])
        self._done = set(cursor.get("done", ()))  # an older version did not tell

    async def _resume(self) -> None:
        checkpoint = await self.context.checkpoint()
        if checkpoint.cursor:
            self.counters = dict(checkpoint.counters)
            self._read(checkpoint.cursor)
            self._began -= float(checkpoint.cursor["elapsed_s"])
        await begin_again(self.context, checkpoint.cursor.get("old_files", []))

    async def _publish(self) -> None:
        total = len(self.wanted.keys)
        await self.context.report_progress(Progress(done=self._next, total=total, unit="rows", counters=self.counters))

    def counted(self, prefix: str) -> dict[str, int]:
        """Return the counters below a prefix, by table."""
        return counted(self.counters, prefix)


def counted(counters: Mapping[str, int], prefix: str) -> dict[str, int]:
    """Return the counters of a run below a prefix, by table: the other way of ``prefixed``."""
    mark = f"{prefix}:"
    return {name.removeprefix(mark): rows for name, rows in counters.items() if name.startswith(mark)}


def prefixed(prefix: str, counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts by table as counters of a run."""
    return {f"{prefix}:{name}": rows for name, rows in counts.items()}
