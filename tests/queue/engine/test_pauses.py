"""A process that stands still for longer than its lease, and one whose event loop does."""

from holdfast import wire
from tests.queue.engine.room import LEASE_S, Room, ids


def test_a_sleeper_that_wakes_cannot_finish_what_another_runs(room: Room) -> None:
    jobs = ids("job", 20)
    sleeper = room.start(max_jobs=20)
    room.enqueue_all("gated", jobs)
    room.wait_for("start", jobs)
    other = room.start(max_jobs=20)

    sleeper.pause()
    room.wait_for("start", jobs, other.pid)
    sleeper.resume()
    room.wait(lambda: sleeper.text.count("was taken over by another worker") == len(jobs), "all cancelled")
    room.open_gate()
    results = room.wait_for_results(jobs)

    assert {result["r"] for result in results.values()} == {other.pid}
    assert room.count("end") == dict.fromkeys(jobs, 1)
    assert {mark.job_try for mark in room.marks()} == {1}
    room.wait(lambda: room.left_behind() == [], "an empty queue")
    assert sleeper.alive


def test_a_sleeper_that_wakes_leaves_the_result_of_another(room: Room) -> None:
    jobs = ids("job", 20)
    sleeper = room.start(max_jobs=20)
    room.enqueue_all("gated", jobs)
    room.wait_for("start", jobs)
    other = room.start(max_jobs=20)

    sleeper.pause()
    room.wait_for("start", jobs, other.pid)
    room.open_gate()
    room.wait_for_results(jobs)
    sleeper.resume()  # its jobs find the gate open: some may end before they are cancelled
    room.enqueue_all("quick", after := ids("after", 40))
    room.wait_for_results(after)
    told_off = ("was taken over by another worker", "here does not count")
    room.wait(lambda: sum(sleeper.text.count(words) for words in told_off) >= len(jobs), "each job told off")

    assert {result["r"] for result in room.wait_for_results(jobs).values()} == {other.pid}
    room.wait(lambda: room.left_behind() == [], "an empty queue")
    assert sleeper.alive


def test_a_sleeper_whose_lease_nobody_took_goes_on(room: Room) -> None:
    worker = room.start()
    room.enqueue("gated", job_id="job")
    room.wait_for("start", ["job"])

    worker.pause()
    lease_end_ms = room.redis.zscore(f"{wire.DEFAULT_QUEUE}:leases", "job")
    room.wait(lambda: _redis_ms(room) > lease_end_ms, "the lease's end")
    worker.resume()
    room.wait(lambda: room.redis.zscore(f"{wire.DEFAULT_QUEUE}:leases", "job") != lease_end_ms, "a new lease")
    room.open_gate()
    room.wait_for_results(["job"])

    assert room.count("start") == {"job": 1}


def _redis_ms(room: Room) -> float:
    seconds, microseconds = room.redis.time()
    return float(seconds * 1000 + microseconds / 1000)


def test_a_job_that_blocks_the_loop_keeps_its_lease_and_is_named(room: Room) -> None:
    blocked = room.start()
    room.enqueue("gated", job_id="neighbour")
    room.wait_for("start", ["neighbour"])
    room.enqueue("blocking", LEASE_S * 2.5, job_id="culprit")
    room.wait_for("start", ["culprit"])
    idle = room.start()
    blocked.wait_for("job culprit:blocking has blocked the event loop for")

    room.open_gate()
    results = room.wait_for_results(["culprit", "neighbour"])
    room.enqueue_all("quick", ids("next", 20))
    room.wait_for_results(ids("next", 20))

    assert room.count("start", idle.pid).keys() <= set(ids("next", 20))
    assert {result["r"] for result in results.values()} == {blocked.pid}
    assert room.count("start")["culprit"] == room.count("start")["neighbour"] == 1
    assert blocked.text.count("has blocked the event loop") == 1
    assert blocked.alive
