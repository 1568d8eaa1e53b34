"""The archive's flow: for each table walk what is due, batch by batch, until a look finds nothing left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Table

from db.archives.catalog import Catalog
from db.archives.lines import NotKept
from db.archives.rows import ProofFailed, Stamp, count_due
from db.archives.walks import Stretch, Walk, choose_walk
from db.connection import get_manager, get_reading_session
from db.mixins import now
from holdfast.progress import Progress
from holdfast.requests import ArchiveDeleted, ArchiveReport
from jobs.archive_deleted.ahead import Ahead, Place
from jobs.archive_deleted.closing import close_early, close_files, make_report
from jobs.archive_deleted.destinations import KeepInFiles, Keeping, KeepInTables, KeepNothing, last_number
from jobs.archive_deleted.estimate import estimate
from jobs.archive_deleted.part_files import FolderUnusable, PartUnreadable
from jobs.archive_deleted.pieces import take_piece
from jobs.archive_deleted.plan import Plan, first_state, fit_state, make_plan
from jobs.archive_deleted.side_by_side import can_be_shared, close_shares, walk_side_by_side
from jobs.archive_deleted.sizes import choose_size
from jobs.archive_deleted.state import EndedBy, Progressed, State, TableState, added
from jobs.archive_deleted.steps import BATCH_SETTINGS, SWIFT_STEPS, Batch, Step, Taken, choose_steps, impatient
from jobs.batch_size import BatchSize
from jobs.context import RunContext
from jobs.outcomes import JobCancelled, JobFailed
from jobs.throttle import Throttle

MOST_WALKS = 3
"""How often a table is walked for what was locked or moved in the meantime."""
WAY_OUT = "set ARCHIVE_DIR to a folder that the worker may write"


async def archive_deleted(
    context: RunContext, request: ArchiveDeleted, *, catalog: Catalog | None = None
) -> ArchiveReport:
    """Archive what was soft-deleted long ago.

    Args:
        context: the run.
        request: what, whereto and how much.
        catalog: the tables that there are; those of the application and its plugins if not given.

    Raises:
        JobFailed: a table is unknown, its archive is not like it, or a row is in the archive already.
        RunInterrupted: the worker is about to stop.
        FenceLost: another worker has taken the run over.
    """
    plan = await make_plan(request, catalog or Catalog.of())
    before = await context.checkpoint()
    if before.cursor:
        state = fit_state(State.from_json(before.cursor), plan)
    else:
        state = await first_state(context.settings, request, plan)
    so_far = Progressed(state, before.counters)
    archive = Archive(context, request, plan, so_far)
    try:
        with _final_errors():
            return await (estimate(archive) if request.dry_run else archive.run())
    except (JobCancelled, JobFailed):
        if request.destination == "files" and not request.dry_run:
            await close_early(context, plan)
        raise


@contextmanager
def _final_errors() -> Iterator[None]:
    try:
        yield
    except PartUnreadable as error:
        raise JobFailed("part_unreadable", f"{error}; its rows were not deleted") from error
    except NotKept as error:
        raise JobFailed("unreadable_value", f"{error}; its rows were not deleted") from error
    except FolderUnusable as error:
        raise JobFailed("folder_unusable", f"{error}: its rows were not deleted; {WAY_OUT}") from error
    except ProofFailed as error:
        raise JobFailed("proof_failed", f"{error}; look for triggers on the table or its archive") from error


class Archive:
    """One attempt of a run: goes on from its checkpoint."""

    def __init__(self, context: RunContext, request: ArchiveDeleted, plan: Plan, so_far: Progressed) -> None:
        state = so_far.state
        self.context = context
        self.request = request
        self.plan = plan
        self.state = state
        self.counters = dict(so_far.counters)
        self.throttle = Throttle(context, paused_s=state.paused_s)
        self._stamp = Stamp(now(), context.run_id)
        self._began = time.monotonic() - state.elapsed_s
        self._next_number = 1
        self._ahead: Ahead | None = None

    async def run(self) -> ArchiveReport:
        """Archive each table, and report."""
        self._next_number = 1 + await last_number(self.context.run_id)
        ended_by: EndedBy = "done"
        # As the run began: a deploy may have brought tables since, which are left to the next run, or another order.
        for table in [self._table(share.name) for share in self.state.tables]:
            while ended_by == "done" and self.state.of(table.fullname).left is None:
                ended_by = await self._walk(table)
        for share in self.state.tables:
            if share.left is None:
                await self._look_at_the_rest(self._table(share.name))
        files = await close_files(self.context, self.plan) if self.request.destination == "files" else None
        await self.publish()
        return make_report(self.request, Progressed(self.timed(self.state), self.counters), ended_by, files)

    async def _walk(self, table: Table) -> EndedBy:
        """Walk a table from where the run stands to its end, and look whether anything is left."""
        share = self.state.of(table.fullname)
        if share.walk is None:
            share = await self._begin_walk(table, share)
        if can_be_shared(self, table):
            if (end := await walk_side_by_side(self, table)) is not None:
                return end
            share = self.state.of(table.fullname)
            # Shares number their files themselves. One that took up where an earlier attempt stood has gone on behind
            # the last number that this attempt has seen at its start.
            self._next_number = 1 + await last_number(self.context.run_id)
        else:
            await close_shares(self, table)
        try:
            end = await self._go(table, share)
        finally:
            if self._ahead is not None:
                await self._ahead.end()
                self._ahead = None
        if end is not None:
            return end
        await self._look_at_the_rest(table)
        return "done"

    async def _go(self, table: Table, share: TableState) -> EndedBy | None:
        size = await choose_size(self.request, table, self.state.of(table.fullname))
        while share.walk is not None and not share.walk.is_over:
            await self.throttle.hold(self.request.until)
            self.context.stop_if_asked()
            if (end := self.limit_reached()) is not None:
                return end
            await self._step(table, size)
            await self.publish()
            share = self.state.of(table.fullname)
        return None

    async def _begin_walk(self, table: Table, share: TableState) -> TableState:
        exact = self.request.batch_rows is not None or self.request.max_rows is not None
        async with get_reading_session() as session:
            walk = await choose_walk(
                session,
                table,
                due=share.due,
                by_pages=not exact and not self.plan.has_children(table) and share.walks == 0,
                again=share.walks > 0,
            )
        begun = replace(share, walk=walk, walks=share.walks + 1, moved_in_walk=0, kept=0)
        self.state = self.state.with_table(begun).with_kept_rows(table.fullname, (), anew=True)
        return begun

    async def _look_at_the_rest(self, table: Table) -> None:
        """Count what is due still; walk again if rows were in use, or have moved behind the walk."""
        share = self.state.of(table.fullname)
        async with get_reading_session() as session:
            rest = await count_due(session, table, share.before) - share.kept
        is_at_its_end = share.walk is not None and share.walk.is_over
        if rest > 0 and is_at_its_end and share.walks < MOST_WALKS and (share.moved_in_walk or share.walks == 1):
            self.state = self.state.with_table(replace(share, walk=None))
        else:
            self.state = self.state.with_table(replace(share, left=max(rest, 0)))

    async def _step(self, table: Table, size: BatchSize) -> None:
        share = self.state.of(table.fullname)
        assert share.walk is not None  # noqa: S101 - a walk has begun
        stretch = Stretch(table, share.walk, share.before, self._rows_allowed(size.rows))
        keeping = None
        if share.walk.kind == "pages":
            stretch, keeping = await self._written_ahead(stretch)

        async def batch(stretch: Stretch, step: Step) -> Taken:
            return await self.batch(stretch, step, keeping=keeping if step in SWIFT_STEPS else None)

        await take_piece(self, stretch, size, batch)

    def steps(self, table: Table, walk: Walk) -> tuple[Step, Step]:
        """Return the two ways to take a walk's rows, as ``choose_steps``."""
        into_new = self.request.destination == "tables" and self.state.of(table.fullname).walks == 1
        return choose_steps(self.plan, table, walk, get_manager().engine.dialect.name, into_new=into_new)

    async def _written_ahead(self, stretch: Stretch) -> tuple[Stretch, Keeping | None]:
        if self.request.destination != "files":
            return stretch, None
        if self._ahead is None:
            place = Place(self._stamp, self._folder, self.context.fence)
            self._ahead = Ahead(place, self.plan.shapes[stretch.table.fullname])
        return await self._ahead.next(stretch, self._next_number)

    async def batch(
        self, stretch: Stretch, step: Step, *, keeping: Keeping | None = None, discard: bool = False
    ) -> Taken:
        """Do a step in one transaction of the run, together with its cursor and its counters."""
        began, keeping, swift = time.monotonic(), keeping or self.keeping(), step in SWIFT_STEPS
        try:
            async with (
                self.context.batch(discard=discard, settings=BATCH_SETTINGS[swift]) as batch,
                impatient(batch.session, swift=swift),
            ):
                locking = time.monotonic()
                taken = await step(Batch(batch.session, self.plan, keeping), stretch)
                await keeping.settle(batch.session)
                state = self._after(stretch.table, taken)
                counters = added(self.counters, self.counts_of(taken, keeping))
                batch.cursor, batch.counters = state.as_json(), counters
        finally:
            await keeping.end(discard=discard)
        taken.committed(began, locking)
        if discard:
            return taken
        self.state = replace(state, longest_s=max(state.longest_s, taken.seconds if taken.roots else 0.0))
        self.counters = counters
        self._next_number = max(self._next_number, keeping.last_number + 1)
        self.throttle.committed(counters["batches"])
        await self.throttle.rest(taken.seconds)
        return taken

    def _after(self, table: Table, taken: Taken) -> State:
        share = self.state.of(table.fullname)
        changed = replace(
            share,
            walk=taken.walk,
            moved_in_walk=share.moved_in_walk + taken.roots,
            kept=share.kept + len(taken.kept),
        )
        named = [reference.as_texts(table) for reference in taken.kept]
        state = self.state.with_table(changed).with_checksums(taken.checksums)
        state = state.with_kept_rows(table.fullname, named, anew=False)
        return self.timed(state)

    def timed(self, state: State) -> State:
        """Return the state with the times of this moment."""
        return replace(state, elapsed_s=time.monotonic() - self._began, paused_s=self.throttle.paused_s)

    @staticmethod
    def counts_of(taken: Taken, keeping: Keeping) -> dict[str, int]:
        """Return what a batch adds to the counters."""
        moved = {f"moved:{name}": rows for name, rows in taken.moved.items() if rows}
        return moved | {"rows": taken.roots, "batches": 1, **keeping.counters}

    def keeping(self, *, first_number: int | None = None) -> Keeping:
        """Return the keeping side of one batch; files are numbered from ``first_number`` on."""
        if self.request.destination == "tables":
            return KeepInTables(self._stamp)
        if self.request.destination == "purge":
            return KeepNothing()
        return KeepInFiles(self._stamp, self._folder, self.context.fence, first_number or self._next_number)

    @property
    def _folder(self) -> Path:
        return self.context.settings.archives_dir / str(self.context.run_id)

    def _rows_allowed(self, count: int) -> int:
        if self.request.max_rows is None:
            return count
        return min(count, self.request.max_rows - self.counters.get("rows", 0))

    def limit_reached(self) -> EndedBy | None:
        """Return why the run must end now, if it must."""
        if self.request.until is not None and datetime.now(UTC) >= self.request.until:
            return "until"
        if self.request.max_rows is not None and self.counters.get("rows", 0) >= self.request.max_rows:
            return "max_rows"
        return None

    def _table(self, name: str) -> Table:
        return self.plan.shapes[name].table

    async def publish(self) -> None:
        """Tell whoever watches how far the run has come."""
        total = sum(share.due for share in self.state.tables)
        done = min(self.counters.get("rows", 0), total)
        await self.context.report_progress(Progress(done=done, total=total, unit="rows", counters=self.counters))
