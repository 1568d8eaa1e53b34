"""The next piece of a walk, whoever walks: all at once where that goes, with care where it does not."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from db.archives.rows import ProofFailed
from db.archives.walks import Stretch
from db.errors import is_unique_violation
from jobs.archive_deleted.steps import SWIFT_STEPS, Batch, Step, Taken, is_lock_conflict
from jobs.batch_size import BatchSize
from jobs.outcomes import JobFailed

if TYPE_CHECKING:
    from jobs.archive_deleted.job import Archive


async def take_piece(
    archive: "Archive", stretch: Stretch, size: BatchSize, batch: Callable[[Stretch, Step], Awaitable[Taken]]
) -> Taken | None:
    """Take the next piece of a walk.

    Args:
        archive: the run.
        stretch: the piece.
        size: of the walk's batches; it hears how long this one took.
        batch: does a step in one transaction, with the cursor and the counters of whoever walks.

    Returns:
        What was done; None where a row was locked for too long, and fewer are to be taken next.

    Raises:
        JobFailed: a row is in the archive already.
        ProofFailed: rows are not what was archived of them, though each was locked.
    """
    swift, careful = archive.steps(stretch.table, stretch.walk)
    is_swift = swift in SWIFT_STEPS
    try:
        try:
            taken = await batch(stretch, swift)
        except (ProofFailed, DBAPIError) as error:
            # Others have changed a row, have it locked, or have archived it since this step has read it.
            is_met = is_lock_conflict(error) or is_unique_violation(error)
            if isinstance(error, DBAPIError) and not (is_swift and is_met):
                raise
            return await batch(stretch, careful)
    except DBAPIError as error:
        if is_unique_violation(error) and archive.request.destination == "tables":
            raise JobFailed(
                "already_archived",
                f"{stretch.table.fullname}: a row that is due, or one that goes with it, is in its archive already; "
                "nothing of its batch was moved: compare the two and remove one",
            ) from error
        if is_swift or not is_lock_conflict(error):
            raise
        if size.shrink():
            return None
        return await batch(replace(stretch, count=1), Batch.pass_over)  # one alone that is locked for long is left
    beside_others = archive.throttle.share < 1
    size.took(taken.effort, taken.seconds if beside_others else taken.held_s, beside_others=beside_others)
    return taken
