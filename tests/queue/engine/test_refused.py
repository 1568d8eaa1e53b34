"""Whoever keeps a ledger is asked before Redis is told that an entry cannot be run."""

from collections import Counter
from typing import Any

import pytest
from arq import Retry

from holdfast import wire
from tests.queue.engine.poison import payload
from tests.queue.engine.room import Room
from tests.queue.engine.serving import KEYS, Jobs, all_ended, serving, until
from worker.queue.claims import Claimed
from worker.queue.ends import Refused, Withdrawn

UNREAD: dict[str, bytes | None] = {"": b"garbage", "payload": None, "function": payload(f="unknown", et=7)}
"""Payloads by what their entry lacks."""


def put(room: Room, data: bytes | None) -> None:
    if data is not None:
        room.redis.set(wire.JOB_KEY + "job", data)
    room.redis.zadd(KEYS.queue, {"job": 1})


@pytest.mark.parametrize("lacks", UNREAD)
async def test_what_it_lets_go_back_is_neither_told_nor_parked(room: Room, jobs: Jobs, lacks: str) -> None:
    asked: list[Any] = []

    async def on_refused(claimed: Claimed, refusal: Refused, enqueued_ms: int) -> None:
        asked.append((claimed.job_id, refusal.lacks, enqueued_ms))
        if len(asked) == 1:
            raise Retry(defer=0.01)

    put(room, UNREAD[lacks])
    async with serving(room, jobs, on_refused=on_refused):
        await until(lambda: all_ended(room, ["job"]))
    assert asked == [("job", lacks, 7 if lacks == "function" else 0)] * 2
    assert room.redis.hkeys(KEYS.quarantine) == [b"job"]
    assert room.left_behind() == []


async def test_what_it_withdraws_is_taken_away_and_nothing_told(room: Room, jobs: Jobs) -> None:
    seen: Counter[str] = Counter()

    async def then() -> None:
        seen[f"then, {room.redis.zcard(KEYS.queue)} entries left"] += 1

    async def on_refused(claimed: Claimed, _refusal: Refused, _enqueued_ms: int) -> None:
        room.redis.zadd(wire.ABORT_KEY, {claimed.job_id: 1})  # it comes too late for the claim
        raise Withdrawn(then)

    put(room, UNREAD["function"])
    async with serving(room, jobs, on_refused=on_refused):
        await until(lambda: seen)
    assert seen == {"then, 0 entries left": 1}
    assert room.redis.exists(wire.JOB_KEY + "job", wire.RESULT_KEY + "job", KEYS.quarantine) == 0
    assert room.redis.zrange(wire.ABORT_KEY, 0, -1) == [b"job"]
    room.redis.delete(wire.ABORT_KEY)
    assert room.left_behind() == []
