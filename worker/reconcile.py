"""Comparing the ledger with Redis: what is missing there is put back, whatever made Redis forget it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from db.connection import get_async_session
from db.repositories import due_runs
from db.repositories.due_runs import Dispatchable
from worker.dispatch import PAGE_RUNS, dispatch_runs


async def reconcile(
    redis: Any, wanted: Dispatchable, *, after: UUID | None = None, most: int | None = None
) -> tuple[int, UUID | None]:
    """Look in Redis for the waiting runs of the ledger and put back what is missing.

    Args:
        redis: arq's connection.
        wanted: which runs belong there.
        after: go on above this id.
        most: compare about so many; None: all.

    Returns:
        How many were put back, and the id above which to go on; None: that was the last one.
    """
    count = compared = 0
    while most is None or compared < most:
        async with get_async_session(read_only=True) as session:
            page = await due_runs.waiting_ids(session, wanted, after=after, limit=PAGE_RUNS)
        if page:
            after = page[-1].id
            count += await _put_missing(redis, wanted, page)
        if len(page) < PAGE_RUNS:
            return count, None
        compared += len(page)
    return count, after


async def _put_missing(redis: Any, wanted: Dispatchable, page: Sequence[Row[UUID, str, str | None]]) -> int:
    scores = await redis.zmscore(wanted.queue, [run.job_id for run in page])
    missing = [run.id for run, score in zip(page, scores, strict=True) if score is None or run.reason == "crashed"]
    return await dispatch_runs(redis, wanted.kinds, missing) if missing else 0


class RedisWatch:
    """Notices that Redis was emptied, or that another one answers (a failover to a replica that lagged)."""

    def __init__(self, queue: str) -> None:
        self._key = f"{queue}:sentinel"

    async def note(self, redis: Any) -> None:
        """Leave a sentinel that says which Redis the ledger was compared with, for all workers."""
        await redis.set(self._key, _identity(await redis.info("replication")))

    async def has_lost(self, redis: Any) -> bool:
        """Whether the ledger's waiting runs have to be compared with this Redis now."""
        async with redis.pipeline(transaction=False) as pipe:
            pipe.get(self._key)
            pipe.info("replication")
            compared_with, info = await pipe.execute()
        return bool(compared_with != _identity(info))


def _identity(info: dict[str, Any]) -> bytes:
    return str(info.get("master_replid")).encode()
