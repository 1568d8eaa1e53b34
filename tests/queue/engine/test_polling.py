"""Where Redis may not or cannot tell of changes, the queue is polled."""

from pathlib import Path

import pytest

from tests.queue.engine.room import Room, ids
from tests.servers import RedisServer
from worker.embedded import EmbeddedRedis

POLLED = "the queue is polled, its Redis does not tell of changes"


@pytest.mark.parametrize(
    "rules",
    [
        ["&*", "+@all", "-client|tracking"],
        ["&*", "+@all", "-client"],
        ["&*", "+@all", "-subscribe"],
        ["resetchannels", "+@all"],
    ],
)
def test_a_user_without_tracking(own_room: Room, own_redis: RedisServer, rules: list[str]) -> None:
    room, jobs = own_room, ids("job", 20)
    room.redis.execute_command("ACL", "SETUSER", "plain", "on", ">plain", "~*", *rules)
    worker = room.start(redis_url=f"redis://plain:plain@127.0.0.1:{own_redis.port}/0", longest_idle_s=60)
    worker.wait_for(POLLED)
    room.enqueue_all("quick", jobs)
    room.enqueue("quick", job_id="deferred", defer_s=0.3)
    room.wait_for_results([*jobs, "deferred"])
    room.enqueue("quick", job_id="later")
    room.wait_for_results(["later"])

    assert room.count("start") == dict.fromkeys([*jobs, "deferred", "later"], 1)
    assert worker.text.count(POLLED) == 1
    assert "cannot be used" not in worker.text


def test_the_embedded_queue(tmp_path: Path) -> None:
    jobs = ids("job", 20)
    with EmbeddedRedis(tmp_path) as queue, Room(f"unix://{queue.socket_path}", tmp_path / "room") as room:
        worker = room.start(max_jobs=30)
        room.enqueue_all("quick", jobs)
        room.enqueue_all("gated", running := ids("running", 5))
        room.enqueue("retrying", 1, "", 0.2, job_id="retried")
        room.redis.zadd("arq:queue", {"poison": 1})
        room.wait_for("start", running)
        room.wait_for_results([*jobs, "retried"])
        room.redis.flushall()
        room.wait(lambda: room.redis.zcard("arq:queue:leases") >= len(running), "the claims made again")
        room.open_gate()
        room.wait_for_results(running)
        worker.terminate()
        other = room.start()
        room.enqueue("quick", job_id="later")
        room.wait_for("end", ["later"], other.pid)

        assert room.count("end") == dict.fromkeys([*jobs, *running, "retried", "later"], 1)
        other.terminate()
