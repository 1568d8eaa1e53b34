"""A dry run: what is due, and how long it may take, from batches that are moved and taken back."""

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from db.archives.walks import Stretch, Walk
from holdfast.requests import KEPT_ROWS_NAMED, ArchiveReport, KeptRow
from jobs.archive_deleted.pieces import take_piece
from jobs.archive_deleted.state import TableState
from jobs.archive_deleted.steps import Taken
from jobs.batch_size import BatchSize

if TYPE_CHECKING:
    from jobs.archive_deleted.job import Archive

FEW_ROWS = 10
TRIED_ROWS = 1_000


async def estimate(archive: "Archive") -> ArchiveReport:
    """Return what a run would do. Some rows of each table are really moved, proved and rolled back.

    Raises:
        JobFailed: one of those rows is in the archive already.
    """
    seconds, rows_left = 0.0, archive.request.max_rows
    tried, followed, kept = Counter[str](), Counter[str](), Counter[str]()
    kept_rows: list[KeptRow] = []
    for share in archive.state.tables:
        due = share.due if rows_left is None else min(share.due, rows_left)
        rows_left = None if rows_left is None else rows_left - due
        if not due or (taken := await _try(archive, share, due)) is None:
            continue
        seconds += due * taken.seconds / max(taken.effort, 1)
        table = archive.plan.shapes[share.name].table
        tried[share.name] = taken.effort
        kept[share.name] = len(taken.kept)
        kept_rows += [KeptRow(**reference.as_texts(table)) for reference in taken.kept]
        followed.update({**taken.moved, share.name: taken.moved.get(share.name, 0) - taken.roots})
    return ArchiveReport(
        destination=archive.request.destination,
        moved={share.name: 0 for share in archive.state.tables},
        due={share.name: share.due for share in archive.state.tables},
        kept=dict(+kept),
        kept_rows=tuple(kept_rows[:KEPT_ROWS_NAMED]),
        tried=dict(+tried),
        followed=dict(+followed),
        dry_run=True,
        estimated_s=round(seconds, 1),
    )


async def _try(archive: "Archive", share: TableState, due: int) -> Taken | None:
    table, batch = archive.plan.shapes[share.name].table, partial(archive.batch, discard=True)
    taken = None
    for count in (min(FEW_ROWS, due), min(TRIED_ROWS, due)):  # the first batch pays for plans and connections
        stretch = Stretch(table, Walk("keys"), share.before, count)
        taken = await take_piece(archive, stretch, BatchSize(count, target_s=None), batch)
    return taken
