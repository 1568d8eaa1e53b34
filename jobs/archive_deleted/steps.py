"""What one batch does to one table: take what is due, with all that goes with it, and say what was done."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from sqlalchemy import Table, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.family import LivingReference, find_family
from db.archives.hashing import prepare
from db.archives.keys import Key
from db.archives.mysql_ranges import has_ranges, move_range
from db.archives.rows import ByKeys, Chosen, ProofFailed, Shape
from db.archives.walks import Stretch, Walk, choose_rows, find_deletions, lock_due
from db.errors import mysql_code, sqlstate
from db.run_sessions import MYSQL_DIALECTS
from jobs.archive_deleted.destinations import Keeping, KeepInTables, KeepNothing
from jobs.archive_deleted.plan import Plan

LOCK_SQLSTATES = frozenset({"55P03", "40P01"})
LOCK_MYSQL_CODES = frozenset({1205, 1213})
LOCK_WAIT_MS = 500
"""Below PostgreSQL's ``deadlock_timeout`` of a second: in a circle of locks the archive gives way, not the others."""
SWIFT_WAIT_MS = 50
"""Where rows are taken at once: those that others have locked for longer are left out, row by row."""


BATCH_SETTINGS = {
    swift: (("lock_timeout", f"{wait_ms}ms"), ("synchronous_commit", "off"))
    for swift, wait_ms in ((True, SWIFT_WAIT_MS), (False, LOCK_WAIT_MS))
}
"""PostgreSQL's, by whether a batch does one of ``SWIFT_STEPS``. Nothing is lost without a flush at each commit: should
the machine fail, the last batches have not taken place, their rows are where they were, and so is the cursor. Whatever
says that the run is over is flushed, and all before it."""


def is_lock_conflict(error: BaseException) -> bool:
    """Whether a row was locked by somebody else for too long, or each waited for the other."""
    return sqlstate(error) in LOCK_SQLSTATES or mysql_code(error) in LOCK_MYSQL_CODES


@dataclass(slots=True)
class Taken:
    """What one batch has done, once it is committed."""

    walk: Walk
    effort: int = 0
    """Its size, in pages or in rows."""
    roots: int = 0
    """Due rows that left; those that followed them not counted."""
    moved: dict[str, int] = field(default_factory=dict)
    checksums: dict[str, int] = field(default_factory=dict)
    kept: list[LivingReference] = field(default_factory=list)
    seconds: float = 0.0
    """Of its transaction, the commit included."""
    held_s: float = 0.0
    """From its first look at the table to the end of its commit: so long may others find its rows locked."""

    def committed(self, began: float, locking: float) -> None:
        """Note its times, now that it is over, from those (monotonic) when it began and was to lock its first row."""
        ended = time.monotonic()
        self.seconds, self.held_s = ended - began, ended - locking


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch's transaction."""

    session: AsyncSession
    plan: Plan
    keeping: Keeping

    async def take_pages(self, stretch: Stretch) -> Taken:
        """Take the due rows of the next pages at once; it waits for those that others have locked.

        Raises:
            ProofFailed: others changed one in the middle of it. Take the pages row by row instead.
        """
        chosen, behind = stretch.pages()
        taken = Taken(behind, effort=behind.page - stretch.walk.page)
        taken.roots = await self._move(self._shape(stretch), chosen, taken)
        return taken

    async def take_pages_by_row(self, stretch: Stretch) -> Taken:
        """Take the same rows by their keys, each locked before anything is done."""
        chosen, behind = stretch.pages()
        taken = Taken(behind)
        keys = await lock_due(self.session, stretch.table, chosen)
        if keys:
            taken.roots = await self._move(self._shape(stretch), ByKeys(keys), taken)
        return taken

    async def take_deletions(self, stretch: Stretch) -> Taken:
        """Take the due rows of the next range of the index on their deletion at once, as ``take_pages``.

        Raises:
            ProofFailed: as ``take_pages``.
        """
        shape = self._shape(stretch)
        chosen, behind = await find_deletions(self.session, shape, stretch)
        taken = Taken(behind)
        taken.roots = taken.effort = await self._move(shape, chosen, taken)
        return taken

    async def take_range(self, stretch: Stretch) -> Taken:
        """Take the due rows of the next range of the key at once, without those that others have locked (MySQL).

        Raises:
            ProofFailed: others changed one in the middle of it. Take them by their keys instead.
        """
        assert isinstance(self.keeping, KeepInTables)  # noqa: S101 - swift_step
        shape = self._shape(stretch)
        proof, behind = await move_range(self.session, shape, stretch, self.keeping.stamp)
        name = shape.table.fullname
        return Taken(behind, proof.rows, proof.rows, {name: proof.rows}, {name: proof.checksum})

    async def take_rows(self, stretch: Stretch) -> Taken:
        """Take the next due rows by their keys, with their children, each locked before anything is done."""
        keys, behind = await choose_rows(self.session, stretch)
        taken = Taken(behind, effort=len(keys))
        if keys and self.plan.has_children(stretch.table):
            await self._take_family(stretch, keys, taken)
        elif keys:
            taken.roots = await self._move(self._shape(stretch), ByKeys(keys), taken)
        return taken

    async def pass_over(self, stretch: Stretch) -> Taken:
        """Leave due rows where they are, whose children others have locked for too long."""
        _, behind = await choose_rows(self.session, stretch)
        return Taken(behind)

    async def _take_family(self, stretch: Stretch, keys: Sequence[Key], taken: Taken) -> None:
        family = await find_family(self.session, self.plan.catalog, stretch.table, keys)
        taken.kept = family.kept
        taken.roots = len(keys) - len(family.kept)
        for generation in family.generations:
            name, due = generation.table.fullname, len(generation.keys)
            gone = await self._move(self.plan.shapes[name], ByKeys(generation.keys), taken)
            if gone != due:
                raise ProofFailed(f"{name}: {due} rows were to leave and {gone} were there: nothing was changed")

    async def _move(self, shape: Shape, chosen: Chosen, taken: Taken) -> int:
        gone = await self.keeping.take(self.session, shape, chosen)
        name = shape.table.fullname
        taken.moved[name] = taken.moved.get(name, 0) + gone.rows
        if not isinstance(self.keeping, KeepNothing):
            taken.checksums[name] = taken.checksums.get(name, 0) + gone.checksum
        return gone.rows

    def _shape(self, stretch: Stretch) -> Shape:
        return self.plan.shapes[stretch.table.fullname]


Step = Callable[[Batch, Stretch], Awaitable[Taken]]
SWIFT_STEPS: frozenset[Step] = frozenset({Batch.take_pages, Batch.take_deletions, Batch.take_range})
"""They take rows at once; on PostgreSQL they wait for those that others have locked."""


def choose_steps(plan: Plan, table: Table, walk: Walk, dialect: str, *, into_new: bool) -> tuple[Step, Step]:
    """Return how a walk's rows are taken, and how they are where that fails.

    Args:
        plan: the run's.
        table: what is walked.
        walk: its kind.
        dialect: of the database.
        into_new: they go to the archive table, where this run has put none of those that the walk has before it.
    """
    if walk.kind == "pages":
        return Batch.take_pages, Batch.take_pages_by_row
    swift: Step = Batch.take_rows
    if not plan.has_children(table):
        if walk.kind == "deletions" and dialect == "postgresql":
            swift = Batch.take_deletions
        elif into_new and has_ranges(plan.shapes[table.fullname], walk, dialect):
            swift = Batch.take_range
    return swift, Batch.take_rows


@asynccontextmanager
async def impatient(session: AsyncSession, *, swift: bool = False) -> AsyncIterator[None]:
    """Wait for nobody's lock for long in the block, as ``BATCH_SETTINGS`` say on PostgreSQL.

    Args:
        session: the batch's.
        swift: it does one of ``SWIFT_STEPS``: on MySQL and MariaDB it waits for no row, otherwise for a second.
    """
    await prepare(session)
    if swift or session.get_bind().dialect.name not in MYSQL_DIALECTS:
        yield
        return
    await session.execute(text("SET SESSION innodb_lock_wait_timeout = 1"))
    patient_again = text("SET SESSION innodb_lock_wait_timeout = DEFAULT")
    try:
        yield
    except BaseException:
        with suppress(SQLAlchemyError):  # a connection that is gone has no settings
            await session.execute(patient_again)
        raise
    await session.execute(patient_again)
