"""The import's flow: open, read a batch, load it in one transaction, again until the end; then the report."""

import time
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import get_reading_session, writers_take_turns
from db.errors import is_unique_violation
from holdfast.progress import Progress
from holdfast.requests import ImportReport, ImportTasks
from jobs.batch_size import TURN_S, BatchSize
from jobs.context import Batch, Checkpoint, RunContext
from jobs.import_tasks.load import COUNTERS, BatchLoader
from jobs.import_tasks.rejects import write_rejects
from jobs.import_tasks.rows import Reject, Row
from jobs.import_tasks.source import Source
from jobs.outcomes import JobFailed
from jobs.sources import SourceError

RACES_TOLERATED = 5
"""How often an attempt begins again at the same cursor because others took its keys meanwhile."""
PERCENT_FROM_ROWS = 1000
"""``max_rejects_percent`` is looked at from so many rows on, and at the end."""


async def import_tasks(context: RunContext, request: ImportTasks) -> ImportReport:
    """Import a file.

    Raises:
        JobFailed: the file cannot be read or does not fit the request, or too many rows were rejected.
        RunInterrupted: the worker is about to stop.
        FenceLost: another worker has taken the run over.
    """
    races, raced_at = 0, Checkpoint({}, {})
    while True:
        # An atomic run has a cursor only once its one transaction is committed; then only the report is missing.
        checkpoint = Checkpoint({}, {}) if request.dry_run else await context.checkpoint()
        at_once = (request.atomic or request.dry_run) and not checkpoint.cursor
        try:
            with Source.open(request, context.settings, checkpoint.cursor.get("source", {})) as source:
                attempt = Import(context, request, source, checkpoint)
                return await (attempt.load_at_once() if at_once else attempt.load_in_batches())
        except SourceError as error:
            raise JobFailed(error.code, error.message) from error
        except IntegrityError as error:
            races = races + 1 if checkpoint == raced_at else 1
            raced_at = checkpoint
            if not is_unique_violation(error) or races == RACES_TOLERATED:
                raise


class Import:
    """One walk through the file, from a checkpoint to its end."""

    def __init__(self, context: RunContext, request: ImportTasks, source: Source, checkpoint: Checkpoint) -> None:
        self._context = context
        self._request = request
        self._source = source
        self._loader = BatchLoader(context.run_id, request, source.rows.mapping)
        self._counters = {name: checkpoint.counters.get(name, 0) for name in COUNTERS}
        self._started = time.monotonic() - float(checkpoint.cursor.get("elapsed_s", 0.0))

    async def load_in_batches(self) -> ImportReport:
        """Load each batch in a transaction of its own."""
        size = BatchSize(self._request.batch_rows, target_s=TURN_S if writers_take_turns() else None)
        async for rows in self._source.batches(lambda: size.rows):
            async with self._context.batch() as batch:
                began = time.monotonic()
                await self._load(batch, rows)
            size.took(len(rows), time.monotonic() - began)
            if self._too_many_rejects(at_end=False):
                break
            await self._publish()
            self._context.stop_if_asked()
        async with get_reading_session() as session:
            return await self._finish(session)

    async def load_at_once(self) -> ImportReport:
        """Load the whole file in one transaction; a dry run takes it back at the end."""
        async with self._context.batch(discard=self._request.dry_run) as batch:
            batch.counters = {}
            async for rows in self._source.batches(lambda: self._request.batch_rows):
                await self._load(batch, rows)
                if self._too_many_rejects(at_end=False):
                    break
                await self._publish()
                self._context.stop_if_asked()
            return await self._finish(batch.session)

    async def _load(self, batch: Batch, rows: list[Row | Reject]) -> None:
        counts = await self._loader.load(batch.session, rows)
        batch.counters = {name: batch.counters.get(name, 0) + counts[name] for name in COUNTERS}
        batch.cursor = {"source": self._source.cursor, "elapsed_s": round(self._elapsed_s, 3)}
        self._counters = batch.counters

    async def _finish(self, session: AsyncSession) -> ImportReport:
        rejects_file: Path | None = None
        if self._counters["rejected"]:
            rejects_file = self._context.settings.rejects_dir / f"{self._context.run_id}.csv"
            await write_rejects(session, self._context.run_id, rejects_file)
        if problem := self._too_many_rejects(at_end=True):
            raise JobFailed("too_many_rejects", f"{problem}; they are in {rejects_file}: mend them, or allow more")
        await self._publish()
        elapsed_s = max(self._elapsed_s, 0.001)
        return ImportReport(
            **self._counters,
            rejects_file=None if rejects_file is None else str(rejects_file),
            duration_s=round(elapsed_s, 3),
            rows_per_s=round(self._counters["rows_read"] / elapsed_s, 1),
            encoding=self._source.format.encoding,
            dry_run=self._request.dry_run,
        )

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def _too_many_rejects(self, *, at_end: bool) -> str | None:
        """Say which limit is passed, or None."""
        rejected, read = self._counters["rejected"], self._counters["rows_read"]
        if self._request.max_rejects is not None and rejected > self._request.max_rejects:
            return f"{rejected} of {read} rows were rejected but --max-rejects is {self._request.max_rejects}"
        percent = self._request.max_rejects_percent
        if percent is None or not (at_end or read >= PERCENT_FROM_ROWS) or rejected * 100 <= percent * read:
            return None
        return f"{rejected} of {read} rows were rejected but --max-rejects is {percent:g}%"

    async def _publish(self) -> None:
        source = self._source
        await self._context.report_progress(
            Progress(done=source.bytes_read, total=source.total_bytes, unit="bytes", counters=self._counters)
        )
