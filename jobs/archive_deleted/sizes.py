"""How large the batches of a table's walk are, or may become."""

from sqlalchemy import Table

from db.archives.walks import Stretch, count_within
from db.connection import get_manager, get_reading_session
from db.run_sessions import MYSQL_DIALECTS
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted.state import TableState
from jobs.batch_size import BatchSize

MOST_ROWS = 10_000
MOST_BYTES = 16 * 1024 * 1024
"""About so much one batch may hold: PostgreSQL gives no text of more than 1 GB, and it passes through memory."""
FIRST_PAGES = 32
FIRST_DELETIONS = 1_000
TARGET_MS = 20.0
MYSQL_TARGET_MS = 80.0
"""What moves a batch is three statements there, and one on PostgreSQL: on a slow machine half of 20 ms went by without
a row being moved. InnoDB's locks hold up nobody who reads, and these rows were deleted long ago."""


async def choose_size(request: ArchiveDeleted, table: Table, share: TableState) -> BatchSize:
    """Return the size of the batches of a walk.

    Args:
        request: it may say how many rows.
        table: what is walked.
        share: where the run stands in it.
    """
    if request.batch_rows is not None:
        return BatchSize(request.batch_rows, target_s=None)
    target_s = target_of(request)
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


def target_of(request: ArchiveDeleted) -> float:
    """Return for how many seconds a batch is to hold its rows."""
    on_mysql = get_manager().engine.dialect.name in MYSQL_DIALECTS
    return (request.batch_target_ms or (MYSQL_TARGET_MS if on_mysql else TARGET_MS)) / 1000
