"""How large the batches of a table's walk are, or may become."""

from sqlalchemy import Table

from db.archives.walks import Stretch, count_within
from db.connection import get_reading_session
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted.state import TableState
from jobs.batch_size import BatchSize

MOST_ROWS = 10_000
MOST_BYTES = 16 * 1024 * 1024
"""About so much one batch may hold: PostgreSQL gives no text of more than 1 GB, and it passes through memory."""
FIRST_PAGES = 32
FIRST_DELETIONS = 500


async def choose_size(request: ArchiveDeleted, table: Table, share: TableState) -> BatchSize:
    """Return the size of the batches of a walk.

    Args:
        request: it may say how many rows.
        table: what is walked.
        share: where the run stands in it.
    """
    if request.batch_rows is not None:
        return BatchSize(request.batch_rows, target_s=None)
    target_s = request.batch_target_ms / 1000
    if share.walk is None:
        return BatchSize(MOST_ROWS, target_s=target_s)
    async with get_reading_session() as session:
        within = await count_within(session, Stretch(table, share.walk, share.before, count=0), MOST_BYTES)
    most = min(MOST_ROWS, within)
    if share.walk.kind == "pages":
        return BatchSize(most, target_s=target_s, first=FIRST_PAGES, least=4)
    if share.walk.kind == "deletions":
        return BatchSize(most, target_s=target_s, first=FIRST_DELETIONS)
    return BatchSize(most, target_s=target_s)
