"""Direct enqueues, entered into the ledger while they wait: from then on they are as safe as the database."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import RedisError
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import get_reading_session
from db.errors import is_transient
from db.in_time import in_time
from db.repositories import job_run, run_groups
from db.repositories.job_run import BornRun, as_uuid7
from holdfast import wire
from holdfast.errors import WireFormatError
from holdfast.outbox import job_runs_history
from worker.newcomers import free_id, is_storable_id, may_be_in_history

AT_ONCE = 200
REST, BUSY_REST = 3.0, 15.0
"""Pauses between two groups, in times of what the last one took: a long list leaves most of the time to the jobs, and
nearly all of it where each slot is taken, for there the admissions enter more runs than this could."""
BYTES_AT_ONCE = 8 * 1024 * 1024
LOOK_UP_LUA = """
local payloads, total = {}, 0
for at = 2, #KEYS do
  local size = redis.pcall('STRLEN', KEYS[at])
  local payload = false
  if type(size) == 'number' and size > 0 and size <= tonumber(ARGV[1]) then
    total = total + size
    if total > tonumber(ARGV[2]) and at > 2 then break end
    payload = redis.call('GET', KEYS[at])
  end
  payloads[at - 1] = payload
end
return {payloads, redis.call('ZMSCORE', KEYS[1], unpack(ARGV, 3))}
"""
"""KEYS: queue, jobs. ARGV: largest payload, most bytes of all, ids. Returns the payloads (nil: missing, too large or no
string) of as many as fit, and the scores of all."""


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What one look at an intake list came to."""

    entered: int = 0
    """Runs that were new to the ledger."""
    left: int = 0
    """Announcements that were left for a worker that knows their kinds."""


async def take_in(  # noqa: PLR0913 - each is an option of its own
    redis: Any,
    queue: str,
    ids: Sequence[bytes],
    kinds: Collection[str],
    *,
    light: Collection[str] = (),
    is_busy: Callable[[], bool] = lambda: False,
    max_payload_bytes: int = wire.MAX_PAYLOAD_BYTES,
) -> TakenIn:
    """Enter what producers have announced on the intake list.

    An announcement that is lost with this worker costs nothing: its run is entered at admission. One of a kind that is
    unknown here goes back to the list's far end while its entry waits in the queue: in the middle of a deploy another
    worker knows it. The latest come first: the earliest are about to be admitted, which enters them as well.

    Args:
        redis: arq's connection.
        queue: the queue's key.
        ids: the last ``AT_ONCE`` that were taken off the list; the rest of it is taken here.
        kinds: those that this worker enters.
        light: those that this worker knows and that keep no ledger.
        is_busy: whether this worker has no slot left.
        max_payload_bytes: what is larger is not looked at; its claim says why.
    """
    entered, left = 0, set[bytes]()
    began = time.monotonic()
    while ids:
        known, foreign = 0, list[bytes]()
        try:
            async for borns in _look_up(redis, queue, ids, max_payload_bytes):
                mine = [born for born in borns if born.kind in kinds]
                entered += await _enter(mine)
                known += len(mine)
                others = (born for born in borns if born.kind not in kinds and born.kind not in light)
                foreign += [born.job_id.encode() for born in others if born.due_at is not None]
        except BaseException:
            await give_back(redis, queue, ids)
            raise
        if foreign:
            await redis.lpush(queue + wire.INTAKE_SUFFIX, *foreign)
        left.update(foreign)  # some may come again in the next group
        if len(ids) < AT_ONCE or not known:
            break
        await asyncio.sleep((BUSY_REST if is_busy() else REST) * (time.monotonic() - began))
        began = time.monotonic()
        ids = await redis.rpop(queue + wire.INTAKE_SUFFIX, AT_ONCE) or ()
    return TakenIn(entered, len(left))


async def give_back(redis: Any, queue: str, ids: Sequence[bytes]) -> None:
    """Put announcements that were not taken in on the list again, for the next look or another worker."""
    with suppress(RedisError, OSError):
        await redis.rpush(queue + wire.INTAKE_SUFFIX, *ids)


async def _look_up(redis: Any, queue: str, ids: Sequence[bytes], max_bytes: int) -> AsyncIterator[list[BornRun]]:
    """Yield what the payloads tell, in groups that fit into memory."""
    look_up = redis.register_script(LOOK_UP_LUA)
    while ids:
        keys = [queue, *(wire.JOB_KEY.encode() + raw_id for raw_id in ids)]
        payloads, scores = await look_up(keys=keys, args=[max_bytes, BYTES_AT_ONCE, *ids])
        found = zip(ids, payloads, scores, strict=False)
        yield [born for raw_id, payload, score in found if (born := _born(queue, raw_id, payload, score)) is not None]
        ids = ids[len(payloads) :]


def _born(queue: str, raw_id: bytes, payload: bytes | None, score: bytes | None) -> BornRun | None:
    born = None if payload is None else read_born(queue, raw_id, payload)
    # The payload does not tell when a run is due, and the queue may be lost.
    return born if born is None or score is None else replace(born, due_at=_instant(float(score)))


def _instant(unix_ms: float) -> datetime:
    return datetime.fromtimestamp(min(max(unix_ms, 0), wire.LATEST_MS) / 1000, UTC)


def read_born(queue: str, raw_id: bytes, payload: bytes) -> BornRun | None:
    """Read what a payload tells of its run; None where it cannot be read, which the claim will say."""
    try:
        job_id, value = raw_id.decode(), wire.read_job(payload)
        enqueued_at = _instant(value["et"])
    except (UnicodeDecodeError, WireFormatError):
        return None
    if not is_storable_id(job_id):
        return None
    return BornRun(value["f"], queue, job_id, enqueued_at, value["k"], value.get("u"))


async def _enter(borns: Sequence[BornRun]) -> int:
    once = list({born.identity: born for born in borns}.values())
    if not once:
        return 0
    if (entered := await _enter_together(once)) is not None:
        return entered
    # Some were admitted meanwhile, or the database cannot store one's request: each for itself.
    singly = [await _enter_together([born]) for born in once]
    return sum(entered or 0 for entered in singly)


async def _enter_together(borns: Sequence[BornRun]) -> int | None:
    try:
        async with in_time(), get_reading_session() as session:
            new = await _without_former(session, borns)
            ids = [run_id for born in new if (run_id := as_uuid7(born.job_id))]
            taken = await job_run.taken_ids(session, ids) if ids else set()
        rows = {free_id(born, taken): born for born in new}
        async with run_groups.group_session() as session:
            return len(await run_groups.enter(session, rows, None)) if rows else 0
    except StatementError as error:
        if is_transient(error):
            raise
        return None


async def _without_former(session: AsyncSession, borns: Sequence[BornRun]) -> Sequence[BornRun]:
    now = await job_run.database_now(session)
    may_be = may_be_in_history(now)
    old = [born for born in borns if may_be(born)]
    over = await run_groups.find_known(session, old, job_runs_history) if old else {}
    return [born for born in borns if born.identity not in over]
