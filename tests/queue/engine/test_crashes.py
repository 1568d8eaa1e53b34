"""Workers that die: their runs are taken up after the lease, cost no try, and block nobody."""

import os

from redis import asyncio as redis_asyncio

from holdfast import wire
from tests.queue.engine.room import Room, ids
from worker.queue.claims import Claimer, LeaseTerms
from worker.queue.scripts import MAX_ENTRIES, QueueKeys

CRASHES = 6
LONG = bool(os.environ.get("HOLDFAST_LONG_TESTS"))


def test_runs_of_a_killed_worker_run_again_without_charge(room: Room) -> None:
    jobs = ids("job", 100)
    dies = room.start(max_jobs=100)
    room.enqueue_all("gated", jobs)
    room.wait_for("start", jobs)
    lives = room.start(max_jobs=100)

    dies.kill()
    room.wait_for("start", jobs, lives.pid)
    retries = room.redis.keys(wire.RETRY_KEY + "*")
    room.open_gate()
    results = room.wait_for_results(jobs)

    assert retries == []
    assert room.count("start", lives.pid) == dict.fromkeys(jobs, 1)
    assert room.count("end") == dict.fromkeys(jobs, 1)
    assert {mark.job_try for mark in room.marks()} == {1}
    assert all(result["s"] and result["r"] == lives.pid for result in results.values())
    room.wait(lambda: room.left_behind() == [], "an empty queue")


def test_runs_survive_any_number_of_crashes(room: Room) -> None:
    jobs = ids("job", 100)
    room.enqueue_all("once", jobs[:50])  # one try is all they have
    room.enqueue_all("gated", jobs[50:])
    for _ in range(CRASHES):
        worker = room.start(ready=False, max_jobs=100, lease_s=0.6)
        room.wait_for("start", jobs, worker.pid)
        worker.kill()

    room.open_gate()
    room.start(max_jobs=100, lease_s=0.6)
    results = room.wait_for_results(jobs)

    assert all(result["s"] for result in results.values())
    assert room.count("end") == dict.fromkeys(jobs, 1)
    assert room.count("start") == dict.fromkeys(jobs, CRASHES + 1)
    assert {mark.job_try for mark in room.marks()} == {1}


async def test_leased_entries_are_not_in_the_way(room: Room) -> None:
    orphans = ids("orphan", 5000)
    room.enqueue_all("quick", orphans)
    await _lease(room, len(orphans))
    room.start()

    room.enqueue("quick", job_id="fresh")
    room.wait_for("start", ["fresh"])

    assert set(room.count("start")) == {"fresh"}


async def _lease(room: Room, count: int) -> None:
    """Claims as a worker that dies at once."""
    client = redis_asyncio.Redis.from_url(room.url)
    terms = LeaseTerms(
        token=b"dead", lease_ms=600_000, in_progress_ms=600_000, max_payload_bytes=1 << 20, see_aborts=False
    )
    claimer = Claimer(client, QueueKeys(wire.DEFAULT_QUEUE), terms)
    claimed = 0
    while claimed < count:
        claimed += len(await claimer.claim(MAX_ENTRIES))
    await client.aclose()


def test_entries_of_dead_stock_workers_are_not_in_the_way(room: Room) -> None:
    orphans = ids("orphan", 5000)
    room.enqueue_all("quick", orphans)
    with room.redis.pipeline(transaction=False) as pipe:
        for job_id in orphans:
            pipe.set(wire.IN_PROGRESS_KEY + job_id, b"1", px=600_000)
        pipe.execute()
    room.start()

    room.enqueue("quick", job_id="fresh")
    room.wait_for("start", ["fresh"])

    assert set(room.count("start")) == {"fresh"}


def test_all_slots_of_many_workers_are_used(room: Room) -> None:
    workers, slots_each = (14, 10) if LONG else (7, 20)
    slots = workers * slots_each
    jobs = ids("job", slots + 30)
    room.enqueue_all("gated", jobs)
    for _ in range(workers):
        room.start(ready=False, max_jobs=slots_each, lease_s=5)

    room.wait(lambda: len(room.count("start")) == slots, f"{slots} jobs at the same time")
    room.open_gate()
    room.wait_for_results(jobs)

    assert room.count("end") == dict.fromkeys(jobs, 1)
    assert room.count("start") == dict.fromkeys(jobs, 1)
