"""A worker that is told to end: nothing is lost, nothing is charged, and it ends in time."""

import time

from holdfast import wire
from tests.queue.engine.room import Room, ids
from tests.servers import RedisServer

GRACE_S = 1.0
MARGIN_S = 2.0


def test_short_jobs_end_and_long_ones_go_back_without_charge(room: Room) -> None:
    short, long, scheduled = ids("short", 5), ids("long", 5), ["scheduled"]
    first = room.start(grace_s=GRACE_S, cron=True, max_jobs=20)
    room.enqueue_all("gated", short, "short")
    room.enqueue_all("once", long, "long")  # max_tries=1: stock arq loses them here
    room.enqueue_all("cron:gated", scheduled)
    room.wait_for("start", [*short, *long, *scheduled])

    told_at = time.monotonic()
    first._process.terminate()
    first.wait_for("to be completed")
    room.open_gate("short")
    first.wait()
    took_s = time.monotonic() - told_at

    assert took_s < GRACE_S + MARGIN_S
    assert all(result["s"] for result in room.wait_for_results(short).values())
    assert room.redis.keys(wire.RETRY_KEY + "*") == []
    assert room.redis.exists(f"{wire.DEFAULT_QUEUE}:leases", f"{wire.DEFAULT_QUEUE}:owners") == 0
    second = room.start(cron=True, max_jobs=20, lease_s=60)
    room.wait_for("start", [*long, *scheduled], second.pid)
    room.open_gate("long")
    room.open_gate()
    results = room.wait_for_results(long)
    room.wait_for("end", scheduled)

    assert all(result["s"] and result["r"] == second.pid for result in results.values())
    assert room.count("end") == dict.fromkeys([*short, *long, *scheduled], 1)
    assert {mark.job_try for mark in room.marks()} == {1}


def test_nothing_is_claimed_while_it_drains(room: Room) -> None:
    worker = room.start(grace_s=30, max_jobs=5)
    room.enqueue("gated", job_id="running")
    room.wait_for("start", ["running"])

    worker._process.terminate()
    worker.wait_for("to be completed")
    room.enqueue("quick", job_id="late")
    room.open_gate()
    worker.wait()

    assert set(room.count("start")) == {"running"}
    assert room.redis.zcard(wire.DEFAULT_QUEUE) == 1


def test_it_ends_in_time_though_a_job_does_not(room: Room) -> None:
    worker = room.start(grace_s=GRACE_S)
    room.enqueue("stubborn", job_id="stubborn")
    room.wait_for("start", ["stubborn"])

    told_at = time.monotonic()
    worker.terminate()

    assert time.monotonic() - told_at < GRACE_S + MARGIN_S
    assert room.redis.zcard(wire.DEFAULT_QUEUE) == 1, "it may still have been at work: its lease must run out"
    assert room.redis.zcard(f"{wire.DEFAULT_QUEUE}:leases") == 1


def test_it_ends_though_its_redis_is_gone(own_room: Room, own_redis: RedisServer) -> None:
    room = own_room
    worker = room.start(grace_s=GRACE_S, call_deadline_s=1.0)
    room.enqueue("gated", job_id="running")
    room.wait_for("start", ["running"])
    own_redis.kill()
    room.open_gate()
    room.wait_for("end", ["running"])

    told_at = time.monotonic()
    worker.terminate()

    assert time.monotonic() - told_at < GRACE_S + MARGIN_S + 1.0
    assert "closed without Redis, which has not heard the end of 1 runs" in worker.text
