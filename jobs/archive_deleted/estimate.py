"""A dry run: what is due, and how long it may take, from batches that are moved and taken back."""

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from db.archives.walks import Stretch, Walk
from holdfast.requests import ArchiveReport

if TYPE_CHECKING:
    from jobs.archive_deleted.job import Archive

FEW_ROWS = 10
TRIED_ROWS = 1_000


async def estimate(archive: "Archive") -> ArchiveReport:
    """Return what a run would do. Some rows of each table are really moved, proved and rolled back."""
    seconds = 0.0
    for share in archive.state.tables:
        if share.due:
            stretch = Stretch(archive.plan.shapes[share.name].table, Walk("keys"), share.before, TRIED_ROWS)
            # The first batch pays for plans and connections.
            step, _ = archive.steps(stretch.table, stretch.walk)
            await archive.batch(replace(stretch, count=FEW_ROWS), step, discard=True)
            began = time.monotonic()
            taken = await archive.batch(stretch, step, discard=True)
            seconds += share.due * (time.monotonic() - began) / max(taken.effort, 1)
    due = {share.name: share.due for share in archive.state.tables}
    return ArchiveReport(
        destination=archive.request.destination,
        moved=dict.fromkeys(due, 0),
        due=due,
        dry_run=True,
        estimated_s=round(seconds, 1),
    )
