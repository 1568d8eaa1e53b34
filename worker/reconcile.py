"""Comparing the ledger with Redis: what is missing there is put back, whatever made Redis forget it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from db.connection import get_reader
from db.repositories import due_runs
from db.repositories.due_runs import FIRST_ID, Dispatchable
from holdfast import wire
from worker.cancellations import ABORTS_AT_ONCE
from worker.dispatch import PAGE_RUNS, dispatch_runs
from worker.intake import AT_ONCE


async def reconcile(
    redis: Any, wanted: Dispatchable, *, after: UUID = FIRST_ID, most: int | None = None
) -> tuple[int, UUID]:
    """Look in Redis for the waiting runs of the ledger and put back what is missing.

    Args:
        redis: arq's connection.
        wanted: which runs belong there.
        after: go on above this id.
        most: compare about so many; None: all.

    Returns:
        How many were put back, and the id above which to go on; ``FIRST_ID`` after the last one.
    """
    count = compared = 0
    while most is None or compared < most:
        async with get_reader() as reader:
            page = await due_runs.waiting_ids(reader, wanted, after=after, most=PAGE_RUNS)
        if page:
            after = page[-1].id
            count += await _put_missing(redis, wanted, page)
        if len(page) < PAGE_RUNS:
            return count, FIRST_ID
        compared += len(page)
    return count, after


async def _put_missing(redis: Any, wanted: Dispatchable, page: Sequence[Row[UUID, str, str | None]]) -> int:
    scores = await redis.zmscore(wanted.queue, [run.job_id for run in page])
    missing = [run.id for run, score in zip(page, scores, strict=True) if score is None or run.reason == "crashed"]
    return await dispatch_runs(redis, wanted.kinds, missing) if missing else 0


@dataclass(frozen=True, slots=True)
class Sight:
    """What one look at Redis has shown."""

    has_lost: bool
    """It was emptied, or another one answers (a failover to a replica that lagged): the ledger has to be compared."""
    announced: Mapping[str, Sequence[bytes]]
    """By queue, ids of direct enqueues that the ledger may not know."""
    aborted: Sequence[bytes]
    """Ids of runs that somebody wants to be cancelled; of a large set the next page."""


class RedisWatch:
    """What the ledger has to know of its queues in Redis, in one round trip."""

    def __init__(self, queues: Sequence[str]) -> None:
        self._key = f"{queues[0]}:sentinel"
        self._queues = queues
        self._aborts_seen = 0

    async def note(self, redis: Any) -> None:
        """Leave a sentinel that says which Redis the ledger was compared with, for all workers."""
        await redis.set(self._key, _identity(await redis.info("replication")))

    async def look(self, redis: Any) -> Sight:
        """Look once; the announced ids are taken off their lists, the latest first."""
        async with redis.pipeline(transaction=False) as pipe:
            pipe.get(self._key)
            pipe.info("replication")
            pipe.zrange(wire.ABORT_KEY, self._aborts_seen, self._aborts_seen + ABORTS_AT_ONCE - 1)
            for queue in self._queues:
                pipe.rpop(queue + wire.INTAKE_SUFFIX, AT_ONCE)
            compared_with, info, aborted, *announced = await pipe.execute()
        self._aborts_seen = self._aborts_seen + len(aborted) if len(aborted) == ABORTS_AT_ONCE else 0
        found = {queue: ids for queue, ids in zip(self._queues, announced, strict=True) if ids}
        return Sight(compared_with != _identity(info), found, aborted)


def _identity(info: dict[str, Any]) -> bytes:
    return str(info.get("master_replid")).encode()
