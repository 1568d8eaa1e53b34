"""Direct enqueues, entered into the ledger while they wait: from then on they are as safe as the database."""

import asyncio
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from redis.exceptions import ResponseError
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from db.connection import get_async_session
from db.errors import is_transient
from db.repositories import job_run, run_groups
from db.repositories.job_run import BornRun, as_uuid7
from holdfast import wire
from holdfast.errors import WireFormatError
from holdfast.outbox import job_runs_history
from worker.newcomers import free_id, is_storable_id, may_be_in_history

AT_ONCE = 500
REST = 3.0
"""Pauses between two groups, in times of what the last one took: a long list leaves most of the time to the jobs."""
BYTES_AT_ONCE = 8 * 1024 * 1024


async def take_in(redis: Any, queue: str, kinds: Collection[str]) -> int:
    """Enter what producers have announced on the intake list.

    An announcement that is lost with this worker costs nothing: its run is entered at admission. What this worker
    would not run, because its kind is unknown or its payload too large, is left to whoever claims it. The latest come
    first: the earliest are about to be admitted, which enters them as well.

    Args:
        redis: a connection.
        queue: the queue's key.
        kinds: those that this worker enters.

    Returns:
        How many runs were new to the ledger.
    """
    entered = 0
    began = time.monotonic()
    while ids := await redis.rpop(queue + wire.INTAKE_SUFFIX, AT_ONCE):
        for group in await _groups(redis, ids):
            entered += await _enter([born for born in await _look_up(redis, queue, group) if born.kind in kinds])
        if len(ids) < AT_ONCE:
            break
        await asyncio.sleep(REST * (time.monotonic() - began))
        began = time.monotonic()
    return entered


async def _groups(redis: Any, ids: Sequence[bytes]) -> list[list[bytes]]:
    """Cut the ids so that the payloads of each group fit into memory; those that are too large are left out."""
    async with redis.pipeline(transaction=False) as pipe:
        for raw_id in ids:
            pipe.strlen(wire.JOB_KEY.encode() + raw_id)
        sizes = await pipe.execute(raise_on_error=False)  # one may be of another type
    groups: list[list[bytes]] = [[]]
    total = 0
    for raw_id, size in zip(ids, sizes, strict=True):
        if isinstance(size, ResponseError) or not 0 < size <= wire.MAX_PAYLOAD_BYTES:
            continue
        total += size
        if total > BYTES_AT_ONCE:
            groups.append([])
            total = size
        groups[-1].append(raw_id)
    return [group for group in groups if group]


async def _look_up(redis: Any, queue: str, ids: Sequence[bytes]) -> list[BornRun]:
    async with redis.pipeline(transaction=False) as pipe:
        pipe.mget([wire.JOB_KEY.encode() + raw_id for raw_id in ids])
        pipe.zmscore(queue, ids)
        payloads, scores = await pipe.execute()
    borns = []
    for raw_id, payload, score in zip(ids, payloads, scores, strict=True):
        born = None if payload is None else read_born(queue, raw_id, payload)
        if born is not None:
            # The payload does not tell when a run is due, and the queue may be lost.
            borns.append(born if score is None else replace(born, due_at=_instant(score)))
    return borns


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
        async with get_async_session(read_only=True) as session:
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
    old = [born for born in borns if may_be_in_history(born)]
    over = await run_groups.find_known(session, old, job_runs_history) if old else {}
    return [born for born in borns if born.identity not in over]
