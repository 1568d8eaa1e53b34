"""Comparing the ledger with Redis: what is missing there is put back, whatever made Redis forget it."""

import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from db.connection import get_reader
from db.in_time import in_time
from db.repositories import due_runs
from db.repositories.due_runs import FIRST_ID, Dispatchable
from holdfast import wire
from worker.cancellations import ABORTS_AT_ONCE
from worker.dispatch import PAGE_RUNS, dispatch_runs
from worker.intake import AT_ONCE

COMPARED_SUFFIX = ":compared"
CONTENTS = "contents"
LOOK_LUA = """
local info = redis.call('INFO', 'replication')
local seen = {string.match(info, 'master_replid:(%w+)') or '', redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2])}
for at = 2, #KEYS, 2 do
  seen[#seen + 1] = redis.call('HMGET', KEYS[at], ARGV[3], ARGV[4])
  seen[#seen + 1] = redis.call('RPOP', KEYS[at + 1], ARGV[5])
end
return seen
"""
"""KEYS: abort set, then of each queue its compared hash and its intake list. ARGV: first and last of the abort set's
page, the two fields of the hash, the most to take off each list. In a script because an idle worker looks each second:
the answer to INFO is long, and a pipeline costs its process more than one command."""


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
        async with in_time(), get_reader() as reader:
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

    lost: Mapping[str, str]
    """By queue, which Redis that is (``RedisWatch.note``): of those queues that it may have lost something of."""
    announced: Mapping[str, Sequence[bytes]]
    """By queue, ids of direct enqueues that the ledger may not know."""
    aborted: Sequence[bytes]
    """Ids of runs that somebody wants to be cancelled; of a large set the next page."""


class RedisWatch:
    """What the ledger has to know of its queues in Redis, in one round trip.

    In a hash beside each queue stands with which Redis the ledger was compared last: its replication id, which another
    one has after a failover, and the name of its contents, which is made anew when they were lost. There is one entry
    for each set of kinds, because a worker compares only the runs of those that it knows.

    Args:
        queues: the queues' keys.
        kinds: those that this worker compares.
    """

    def __init__(self, queues: Sequence[str], kinds: Collection[str]) -> None:
        self._queues = queues
        self._keys = [wire.ABORT_KEY]
        for queue in queues:
            self._keys += (queue + COMPARED_SUFFIX, queue + wire.INTAKE_SUFFIX)
        self._compared = hashlib.sha256("\n".join(sorted(kinds)).encode()).hexdigest()[:16]
        self._aborts_seen = 0

    async def look(self, redis: Any) -> Sight:
        """Look once; the announced ids are taken off their lists, the latest first."""
        page = self._aborts_seen, self._aborts_seen + ABORTS_AT_ONCE - 1
        script = redis.register_script(LOOK_LUA)
        arguments = (*page, CONTENTS, self._compared, AT_ONCE)
        replication_id, aborted, *answers = await script(keys=self._keys, args=arguments)
        self._aborts_seen = self._aborts_seen + len(aborted) if len(aborted) == ABORTS_AT_ONCE else 0
        lost = dict[str, str]()
        for queue, (contents, compared_with) in zip(self._queues, answers[::2], strict=True):
            name = await self._name_contents(redis, queue) if contents is None else contents
            identity = f"{replication_id.decode()} {name.decode()}"
            if compared_with is None or compared_with.decode() != identity:
                lost[queue] = identity
        announced = {queue: ids for queue, ids in zip(self._queues, answers[1::2], strict=True) if ids}
        return Sight(lost, announced, aborted)

    async def note(self, redis: Any, queue: str, identity: str) -> None:
        """Note, for all workers of these kinds, that the ledger was compared with the Redis that a look has shown.

        What was lost since that look is found by the next one: the identity is another one by then.
        """
        await redis.hset(queue + COMPARED_SUFFIX, self._compared, identity)

    @staticmethod
    async def _name_contents(redis: Any, queue: str) -> bytes:
        async with redis.pipeline(transaction=True) as pipe:
            pipe.hsetnx(queue + COMPARED_SUFFIX, CONTENTS, secrets.token_hex(8))
            pipe.hget(queue + COMPARED_SUFFIX, CONTENTS)
            _, name = await pipe.execute()
        return bytes(name)
