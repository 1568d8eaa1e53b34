"""Several queues: served in their order, each within its slots."""

import time

from holdfast import wire
from tests.queue.engine.room import Room, ids

HIGH = wire.DEFAULT_QUEUE


def starts(room: Room) -> list[str]:
    return [mark.job_id for mark in room.marks() if mark.event == "start"]


def commands(room: Room) -> int:
    return int(room.redis.info("stats")["total_commands_processed"])


def test_a_run_behind_a_thousand_of_a_more_urgent_queue_starts_when_slots_are_free(room: Room) -> None:
    urgent = ids("urgent", 1000)
    room.enqueue("quick", job_id="low", queue="low")
    room.enqueue_all("quick", urgent)
    room.start(max_jobs=10, further_queues=["low"])
    room.wait_for_results(["low", *urgent])

    assert starts(room)[-10:].count("low") == 1
    assert sorted(starts(room)) == sorted(["low", *urgent])


def test_slots_keep_some_for_the_less_urgent_queue(room: Room) -> None:
    urgent = ids("urgent", 1000)
    room.enqueue_all("gated", urgent)
    room.enqueue_all("quick", ids("low", 20), queue="low")
    room.start(max_jobs=5, further_queues=["low"], queue_slots={HIGH: 4}, longest_idle_s=60)
    room.wait_for_results(ids("low", 20))

    assert max_at_once(room, "urgent") == 4
    room.open_gate()
    room.wait_for_results(urgent)
    assert max_at_once(room, "urgent") == 4
    room.wait(lambda: room.left_behind() == room.left_behind("low") == [], "empty queues")


def max_at_once(room: Room, prefix: str) -> int:
    """The most jobs of a prefix that had started and not ended."""
    running = most = 0
    for mark in room.marks():
        if mark.job_id.startswith(prefix):
            running += 1 if mark.event == "start" else -1
            most = max(most, running)
    return most


def test_a_free_slot_is_used_at_once_and_nobody_spins_meanwhile(room: Room) -> None:
    room.start(max_jobs=5, further_queues=["low"], queue_slots={HIGH: 1, "low": 1}, longest_idle_s=60)
    room.enqueue("gated", "first", job_id="first")
    room.wait_for("start", ["first"])
    room.enqueue("gated", "second", job_id="second")
    room.enqueue("gated", "low", job_id="low", queue="low")
    room.wait_for("start", ["low"])

    before, seen_at = commands(room), time.monotonic()
    room.wait(lambda: time.monotonic() > seen_at + 1.0, "a second")
    assert commands(room) - before < 100
    assert starts(room) == ["first", "low"]
    room.open_gate("first")
    room.wait_for("start", ["second"])
    room.open_gate("second")
    room.open_gate("low")
    room.wait_for_results(["first", "second", "low"])
