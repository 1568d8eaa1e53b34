"""Unique keys while their runs live: of two runs with one key the second is the first one's duplicate."""

from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.repositories.job_run import RunRow
from holdfast.outbox import job_runs


async def take_live_key(session: AsyncSession, run: RunRow) -> UUID | None:
    """Give a locked run its unique key while it lives, unless another live run has it.

    Returns:
        The other run's id, or None when the key is this run's.
    """
    key, earlier = _live_key(run.kind, run.unique_key), f"{run.kind}:{run.unique_key}"
    if run.live_key == key:
        return None
    has_it = job_runs.c.live_key == key
    if earlier != key:
        has_it |= (job_runs.c.live_key == earlier) & (job_runs.c.kind == run.kind)
    query = select(job_runs.c.id).where(has_it, job_runs.c.id != run.id)
    holder: UUID | None = (await session.execute(query.limit(1))).scalar()
    if holder is None:
        # Two at the same moment: the second one's statement fails, and its transaction is run again.
        await session.execute(update(job_runs).where(job_runs.c.id == run.id).values(live_key=key))
    return holder


def _live_key(kind: str, unique_key: str) -> str:
    # A kind may have colons but no spaces (KIND_NAME): made spaces, they leave the first colon to end the kind. So a
    # kind without colons has the key that workers of earlier versions look for beside this one. Of a kind with colons
    # they see only those that they have written themselves.
    return f"{kind.replace(':', ' ')}:{unique_key}"
