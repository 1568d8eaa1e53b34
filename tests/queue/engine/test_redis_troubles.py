"""A Redis that lives and is no use: connections cut, paused, full, read-only, slow, or silent."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from holdfast import wire
from tests.processes import WorkerProcess
from tests.queue.engine.proxy import Proxy
from tests.queue.engine.room import Room, ids
from tests.servers import RedisServer, free_port

LEFT, RETURNED = "Redis cannot be used, trying on", "Redis can be used again"
RUNNING, OVER = ids("running", 10), ids("over", 10)
# So long a pickup would take if tracking were not on again afterwards.
IDLE_S = 60.0


def begin(room: Room, url: str | None = None, **options: Any) -> WorkerProcess:
    """Starts a worker; ten of its jobs run and ten are over."""
    worker = room.start(**{"max_jobs": 20, "longest_idle_s": IDLE_S, "redis_url": url or room.url, **options})
    room.enqueue_all("quick", OVER)
    room.enqueue_all("gated", RUNNING)
    room.wait_for("start", RUNNING)
    room.wait_for_results(OVER)
    return worker


def end(room: Room, worker: WorkerProcess) -> None:
    """Checks that it serves, is told of what is new, and has run each job once."""
    room.enqueue("quick", job_id="new")
    room.wait_for_results(["new"])
    room.open_gate()
    results = room.wait_for_results(RUNNING)
    room.wait(lambda: room.left_behind() == [], "an empty queue")
    room.wait(lambda: _is_tracking(room), "that the worker is told of changes")
    room.enqueue("quick", job_id="newer")
    room.wait_for_results(["newer"])

    everything = dict.fromkeys([*OVER, *RUNNING, "new", "newer"], 1)
    assert room.count("start") == room.count("end") == everything
    assert all(result["s"] for result in results.values())
    assert worker.alive
    # Each of its calls has to work again before it says so; another worker may have done all of the above meanwhile.
    room.wait(lambda: worker.text.count(LEFT) == worker.text.count(RETURNED), "that it says that Redis is back")


def _is_tracking(room: Room) -> bool:
    return any("t" in client["flags"] for client in room.redis.client_list())


def _kill_all(room: Room) -> None:
    room.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    room.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")


def _kill_tracker(room: Room) -> None:
    for client in room.redis.client_list():
        if "t" in client["flags"]:
            room.redis.client_kill_filter(_id=client["id"])


def _kill_subscription(room: Room) -> None:
    room.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes")


@pytest.mark.parametrize("kill", [_kill_all, _kill_tracker, _kill_subscription])
def test_connections_are_killed(room: Room, kill: Callable[[Room], None]) -> None:
    worker = begin(room)
    room.wait(lambda: _is_tracking(room), "that the worker is told of changes")

    for _ in range(5):
        kill(room)
    end(room, worker)


def test_redis_pauses_for_longer_than_the_lease(room: Room) -> None:
    worker = begin(room, call_deadline_s=1.0)
    bystander = room.start(max_jobs=20, call_deadline_s=1.0)

    room.redis.execute_command("CLIENT", "PAUSE", 2500, "ALL")
    end(room, worker)

    assert worker.text.count(LEFT) <= 1
    assert bystander.alive


@pytest.mark.parametrize("finished_meanwhile", [False, True])
def test_redis_is_full(own_room: Room, *, finished_meanwhile: bool) -> None:
    room = own_room
    worker = begin(room)
    bystander = room.start(max_jobs=20)
    room.enqueue_all("quick", waiting := ids("waiting", 5), defer_s=0.3)

    room.redis.config_set("maxmemory", 1)
    (worker if finished_meanwhile else bystander).wait_for(LEFT)
    if finished_meanwhile:
        room.open_gate()
        room.wait_for_results(RUNNING)  # what has ended is heard though Redis is full
    leases_run_out_at = time.monotonic() + 2.0
    room.wait(lambda: time.monotonic() > leases_run_out_at, "more than a lease")
    room.redis.config_set("maxmemory", 0)
    room.wait_for_results(waiting)

    assert room.count("start") == dict.fromkeys([*OVER, *RUNNING, *waiting], 1)
    assert worker.text.count(LEFT) <= 1
    assert bystander.text.count(LEFT) <= 1
    assert bystander.alive
    assert worker.alive


def test_redis_becomes_a_replica(own_room: Room) -> None:
    room = own_room
    worker = begin(room)
    bystander = room.start(max_jobs=20)

    room.redis.execute_command("REPLICAOF", "127.0.0.1", free_port())
    room.open_gate()
    room.wait_for("end", RUNNING)
    worker.wait_for(LEFT)
    leases_run_out_at = time.monotonic() + 2.0
    room.wait(lambda: time.monotonic() > leases_run_out_at, "more than a lease")
    assert room.result(RUNNING[0]) is None
    room.redis.execute_command("REPLICAOF", "NO", "ONE")
    end(room, worker)

    assert worker.text.count(LEFT) == 1
    assert bystander.alive


def test_leases_that_nobody_could_renew_are_valid_once_more(own_room: Room) -> None:
    room = own_room
    bystander = room.start()
    room.enqueue("quick", job_id="job", defer_s=600)
    lease_end_ms = time.time() * 1000 + 1500
    room.redis.zadd(wire.DEFAULT_QUEUE, {"job": lease_end_ms})  # as another worker has claimed it
    room.redis.zadd(f"{wire.DEFAULT_QUEUE}:leases", {"job": lease_end_ms})
    room.redis.hset(f"{wire.DEFAULT_QUEUE}:owners", "job", "another")

    room.redis.execute_command("REPLICAOF", "127.0.0.1", free_port())
    bystander.wait_for(LEFT)
    room.wait(lambda: time.time() * 1000 > lease_end_ms + 1000, "the end of the lease")
    room.redis.execute_command("REPLICAOF", "NO", "ONE")
    room.wait_for_results(["job"])

    spared, reaped = "1 leases are valid again", "1 runs of dead workers are back"
    assert bystander.text.index(spared) < bystander.text.index(reaped)


def test_a_name_leads_to_another_master(own_redis: RedisServer, tmp_path: Path) -> None:
    """The old one is demoted and keeps its connections: who goes on with them is answered READONLY for ever."""
    with ExitStack() as stack:
        replica = stack.enter_context(RedisServer(extra_args=["--replicaof", "127.0.0.1", str(own_redis.port)]))
        proxy = stack.enter_context(Proxy(own_redis.port))
        room = stack.enter_context(Room(proxy.url, tmp_path / "room"))
        old, new = own_redis.connect(timeout_s=15.0), replica.connect()
        worker = begin(room, longest_idle_s=1.0)
        assert old.wait(1, 10_000) == 1
        proxy.target = replica.port
        new.replicaof("NO", "ONE")
        old.replicaof("127.0.0.1", replica.port)
        room.redis.connection_pool.disconnect()
        room.wait(lambda: count_clients(old) == 1, "that the worker leaves the old master")
        end(room, worker)
        assert count_clients(old) == 1
        worker.terminate()


def count_clients(redis: Any) -> int:
    """Those that are no replicas and no masters, the asking one among them."""
    return len(redis.client_list(_type="normal")) + len(redis.client_list(_type="pubsub"))


def test_the_network_is_slow(room: Room, redis_server: RedisServer) -> None:
    with Proxy(redis_server.port, delay_s=0.1) as proxy:
        worker = begin(room, proxy.url, lease_s=3.0)
        end(room, worker)

        assert LEFT not in worker.text
        worker.terminate()


def test_packets_vanish(room: Room, redis_server: RedisServer) -> None:
    with Proxy(redis_server.port) as proxy:
        worker = begin(room, proxy.url, call_deadline_s=0.5, longest_idle_s=2.0, lease_s=3.0)
        bystander = room.start(max_jobs=20, queue="other", further_queues=[wire.DEFAULT_QUEUE], lease_s=3.0)
        room.enqueue_all("gated", blockers := ids("blocker", 20), "other-gate", queue="other")
        room.wait_for("start", blockers)

        assert proxy.swallow() >= 4
        room.enqueue("quick", job_id="first")
        room.wait_for("end", ["first"], worker.pid)
        room.open_gate("other-gate")
        room.wait_for_results(blockers)
        room.open_gate()
        room.wait_for_results([*RUNNING, "first"])

        assert room.count("start") == dict.fromkeys([*OVER, *RUNNING, *blockers, "first"], 1)
        room.wait(lambda: worker.text.count(LEFT) == worker.text.count(RETURNED) == 1, "that it has seen it, once")
        assert bystander.alive
        worker.terminate()
