"""Redis goes and comes back, with what it had, with less, or with nothing."""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import pytest
import redis

from holdfast import wire
from tests import skips
from tests.queue.engine.room import Room, ids
from tests.servers import RedisServer

Durability = Literal["no", "everysec", "always"]
LONG = bool(os.environ.get("HOLDFAST_LONG_TESTS"))
SHORT_TRIALS = [("no", 2.0), ("everysec", 0.3), ("everysec", 2.0), ("always", 2.0)]
LONG_TRIALS = list(itertools.product(get_args(Durability), (0.3, 1.5, 3.0, 10.0)))
BACK_AT_WORK_S = 5.0
LEFT, RETURNED = "Redis cannot be used, trying on", "Redis can be used again"


@pytest.fixture
def server(durability: Durability, pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    with skips.made_or_skipped(lambda: RedisServer(appendonly=durability), pytestconfig) as started:
        yield started


@pytest.mark.parametrize(("durability", "down_s"), LONG_TRIALS if LONG else SHORT_TRIALS)
def test_redis_is_killed_and_restarted(
    server: RedisServer, durability: Durability, down_s: float, tmp_path: Path
) -> None:
    over, running, waiting = ids("over", 5), ids("running", 10), ids("waiting", 5)
    with Room(server.url, tmp_path / "room") as room:
        full = room.start(max_jobs=10)
        room.enqueue_all("gated", running)
        room.wait_for("start", running, full.pid)
        free = room.start()  # it must not take over what runs when all leases have run out
        room.enqueue_all("quick", over)
        room.wait_for_results(over)
        room.enqueue_all("quick", waiting, defer_s=down_s + 1.5)

        server.kill()
        time.sleep(down_s)
        server.start()
        room.wait(lambda: _serves(room), "Redis has loaded what it had")
        returned_at = time.monotonic()
        room.enqueue("quick", job_id="new")
        room.wait_for("end", ["new"], free.pid)
        back_s = time.monotonic() - returned_at
        room.open_gate()
        room.wait_for_results(running)
        if durability != "no":
            room.wait_for_results(waiting)

        kept = [*over, *running, "new", *(waiting if durability != "no" else [])]
        assert room.count("start") == room.count("end") == dict.fromkeys(kept, 1)
        assert back_s < BACK_AT_WORK_S
        room.wait(lambda: free.text.count(LEFT) == free.text.count(RETURNED) == 1, "the free worker is back")
        room.wait(lambda: full.text.count(LEFT) == full.text.count(RETURNED), "the full worker is back")
        assert full.text.count(LEFT) <= 1  # it may not have called meanwhile
        assert full.alive
        assert free.alive
        room.wait(lambda: room.left_behind() == [], "an empty queue")


def _serves(room: Room) -> bool:
    try:
        return bool(room.redis.ping())
    except redis.RedisError:
        return False


def test_jobs_that_run_while_redis_is_flushed_end_once(room: Room) -> None:
    running = ids("running", 20)
    worker = room.start(max_jobs=20)
    room.enqueue_all("gated", running)
    room.wait_for("start", running)

    room.redis.flushall()
    room.wait(lambda: room.redis.zcard(f"{wire.DEFAULT_QUEUE}:leases") == len(running), "the claims made again")
    assert room.redis.zcard(wire.DEFAULT_QUEUE) == len(running)
    room.open_gate()
    results = room.wait_for_results(running)

    assert {result["r"] for result in results.values()} == {worker.pid}
    assert room.count("start") == room.count("end") == dict.fromkeys(running, 1)
    assert worker.text.count("Redis had lost the claim of job") == len(running)
    room.wait(lambda: room.left_behind() == [], "an empty queue")


def test_claims_that_were_made_again_go_over_to_another_worker(room: Room) -> None:
    running = ids("running", 5)
    worker = room.start()
    room.enqueue_all("gated", running)
    room.wait_for("start", running)
    room.redis.flushall()
    room.wait(lambda: room.redis.zcard(f"{wire.DEFAULT_QUEUE}:leases") == len(running), "the claims made again")
    worker.kill()

    other = room.start()
    room.wait_for("start", running, other.pid)
    room.open_gate()

    assert {result["r"] for result in room.wait_for_results(running).values()} == {other.pid}


def test_jobs_that_end_before_their_claims_are_made_again_count(room: Room) -> None:
    ending, retrying = ids("ending", 10), ids("retrying", 10)
    room.start(max_jobs=20, lease_s=30)
    room.enqueue_all("gated", ending)
    room.enqueue_all("retrying", retrying, 1, "gate")
    room.wait_for("start", [*ending, *retrying])

    room.redis.flushall()
    room.open_gate()
    results = room.wait_for_results([*ending, *retrying])

    assert all(result["s"] for result in results.values())
    assert room.count("start") == dict.fromkeys(ending, 1) | dict.fromkeys(retrying, 2)
    assert room.count("end") == dict.fromkeys([*ending, *retrying], 1)
