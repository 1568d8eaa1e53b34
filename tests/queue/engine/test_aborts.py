"""An abort is heard once, stays in Redis as long as it is needed, and means one run of an id and not the next."""

from holdfast import wire
from tests.queue.engine.room import Room


def test_an_abort_stays_until_its_job_is_over_and_is_heard_once(room: Room) -> None:
    worker = room.start(functions_see_aborts=True, longest_idle_s=0.1)
    room.enqueue("stubborn", job_id="stubborn")
    room.enqueue("yielding", job_id="yielding")
    room.wait_for("start", ["stubborn", "yielding"])
    room.redis.zadd(wire.ABORT_KEY, {"stubborn": 1})
    room.wait_for("cancelled", ["stubborn"])
    room.redis.zadd(wire.ABORT_KEY, {"yielding": 2})
    room.wait_for_results(["yielding"])  # meanwhile the set was looked at again
    room.wait(lambda: room.redis.zrange(wire.ABORT_KEY, 0, -1) == [b"stubborn"], "the ended one's abort to go")
    assert room.count("cancelled") == {"stubborn": 1, "yielding": 1}
    assert worker.alive


def test_an_abort_does_not_mean_the_next_run_of_its_id(room: Room) -> None:
    worker = room.start(functions_see_aborts=True)
    room.enqueue("yielding", job_id="again")
    room.wait_for("start", ["again"])
    room.redis.zadd(wire.ABORT_KEY, {"again": 1})
    result = room.wait_for_results(["again"])["again"]
    assert (result["s"], result["r"]) == (True, "yielded")
    room.redis.delete(wire.RESULT_KEY + "again")
    room.enqueue("gated", job_id="again")
    room.wait(lambda: room.count("start")["again"] == 2, "its second start")
    assert worker.terminate() == 0
    assert room.result("again") is None  # it was interrupted and waits, it was not cancelled
    assert room.redis.zscore(wire.DEFAULT_QUEUE, "again") is not None
