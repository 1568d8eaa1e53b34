"""The end of a run: its folder is closed, and the report."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from db.models import ArchivePart
from db.repositories.installation import without_inherited
from holdfast.requests import ArchiveDeleted, ArchiveReport, KeptRow
from jobs.archive_deleted.folders import NOT_OURS, close_folder, is_there
from jobs.archive_deleted.plan import Plan
from jobs.archive_deleted.state import EndedBy, Progressed
from jobs.context import RunContext
from jobs.outcomes import JobFailed


@dataclass(frozen=True, slots=True)
class Files:
    """What a run has written."""

    folder: Path
    count: int
    bytes: int


async def close_files(context: RunContext, plan: Plan, *, early: bool = False) -> Files | None:
    """Check that every listed file is there, remove those of dead attempts, and write the manifest.

    Args:
        context: the run.
        plan: the run's.
        early: it ends before its time, cancelled or failed: do what can be done, and check nothing.

    Returns:
        None where nothing was written.

    Raises:
        JobFailed: a file is missing or has another length.
    """
    folder = context.settings.archives_dir / str(context.run_id)
    async with context.batch(although_cancelled=early) as batch:  # nobody else has the run meanwhile
        query = select(ArchivePart).where(ArchivePart.run_id == context.run_id).order_by(ArchivePart.number)
        parts = list(await batch.session.scalars(query))
        for part in parts if not early else ():
            if not is_there(folder, part):
                raise JobFailed(
                    "part_unreadable",
                    f"{folder / part.file} is missing or cut off, though its rows were archived and deleted: bring it "
                    "back, or set ARCHIVE_DIR to where it was written, and retry the run",
                )
        ours = await without_inherited(batch.session, {context.run_id: context.fence})
        fence = ours.get(context.run_id, NOT_OURS)
        await asyncio.to_thread(close_folder, folder, fence, parts=parts, shapes=plan.shapes)
    return Files(folder, len(parts), sum(part.bytes for part in parts)) if parts else None


async def close_early(context: RunContext, plan: Plan) -> None:
    """Close the files of a run that is about to end as cancelled or failed.

    What cannot be done now is left to ``close_ended_runs``: the error that ends the run is the one to be told.
    """
    with suppress(Exception):
        await close_files(context, plan, early=True)


def make_report(request: ArchiveDeleted, done: Progressed, ended_by: EndedBy, files: Files | None) -> ArchiveReport:
    """Return the report of a run that is over."""
    state, counters = done.state, done.counters
    moved = {share.name: 0 for share in state.tables}
    moved |= {name.removeprefix("moved:"): rows for name, rows in counters.items() if name.startswith("moved:")}
    elapsed_s = max(state.elapsed_s, 0.001)
    return ArchiveReport(
        destination=request.destination,
        moved=moved,
        due={share.name: share.due for share in state.tables},
        kept={share.name: share.kept for share in state.tables if share.kept},
        kept_rows=tuple(KeptRow(**row) for row in state.kept_rows),
        left={share.name: share.left for share in state.tables if share.left},
        checksums={name: str(checksum) for name, checksum in state.checksums.items()},
        ended_by=ended_by,
        batches=counters.get("batches", 0),
        longest_batch_ms=round(state.longest_s * 1000, 1),
        paused_s=round(state.paused_s, 3),
        folder=None if files is None else str(files.folder),
        files=0 if files is None else files.count,
        bytes=0 if files is None else files.bytes,
        duration_s=round(elapsed_s, 3),
        rows_per_s=round(sum(moved.values()) / elapsed_s, 1),
    )
