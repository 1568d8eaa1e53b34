"""The users of `deploy/redis-users.acl` can do their work, and nothing that is not their work."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from arq.connections import RedisSettings, create_pool

from holdfast import Client, wire
from holdfast.errors import RunCancelled
from holdfast.requests import ImportReport, ImportTasks
from holdfast.states import RunState
from tests.guarded_redis import USERS, USERS_FILE, connect, denied, guarded_redis, url_of
from tests.queue.engine.room import Room
from tests.servers import RedisServer


@pytest.fixture
def guarded(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    with guarded_redis(tmp_path, pytestconfig) as server:
        yield server


async def test_a_worker_and_producers_work_as_these_users(guarded: RedisServer, tmp_path: Path) -> None:
    with Room(url_of(guarded, "admin"), tmp_path / "room") as room:
        worker = room.start(redis_url=url_of(guarded, "worker"), max_jobs=5, longest_idle_s=0.3)
        settings = RedisSettings.from_dsn(url_of(guarded, "producer"))
        stock = await create_pool(settings, job_serializer=wire.dumps, job_deserializer=wire.loads)
        done = await stock.enqueue_job("quick", _job_id="done")
        retried = await stock.enqueue_job("retrying", 1, _job_id="retried")
        running = await stock.enqueue_job("gated", _job_id="running")
        deferred = await stock.enqueue_job("quick", _job_id="deferred", _defer_by=3600)
        assert done
        assert retried
        assert running
        assert deferred
        assert await done.result(timeout=30, poll_delay=0.05) == worker.pid
        assert await retried.result(timeout=30, poll_delay=0.05) == worker.pid
        room.wait_for("start", ["running"])
        async with Client(url_of(guarded, "producer")) as client:  # stock abort() would need ZREM
            for job in (running, deferred):
                run = client.run(job.job_id, ImportReport)
                assert await run.cancel()
                with pytest.raises(RunCancelled):
                    await run.result(timeout_s=30)
        await stock.aclose(close_connection_pool=True)
        room.redis.zadd(wire.DEFAULT_QUEUE, {"poison": 1})
        room.wait(lambda: room.redis.hexists(f"{wire.DEFAULT_QUEUE}:quarantine", "poison"), "the quarantine")
        room.redis.set(f"{wire.DEFAULT_QUEUE}:scores", b"oops")
        worker.wait_for(f"{wire.DEFAULT_QUEUE}:scores had a wrong type")

        assert denied(room.redis) == []
        assert "the queue is polled" not in worker.text
        worker.terminate()
        assert denied(room.redis) == []


async def test_our_client_works_as_the_producer(guarded: RedisServer, tmp_path: Path) -> None:
    with Room(url_of(guarded, "admin"), tmp_path / "room") as room:
        async with Client(url_of(guarded, "producer")) as client:
            client.ring()
            run = await client.enqueue(ImportTasks(source="a.csv"))
            assert await run.status() is RunState.WAITING
            assert await run.progress() is None
            assert await run.cancel()
            data = wire.dumps({"s": True, "r": {}})
            room.redis.set(wire.RESULT_KEY + run.id, data)
            assert await run.status() is RunState.SUCCEEDED

        assert room.redis.get("arq:queue:bell") == b"1"
        assert denied(room.redis) == []


def test_an_operator_looks_and_clears_the_quarantine(guarded: RedisServer) -> None:
    admin, operator = connect(guarded, "admin"), connect(guarded, "operator")
    admin.hset(f"{wire.DEFAULT_QUEUE}:quarantine", "poison", "{}")
    admin.zadd(wire.DEFAULT_QUEUE, {"job": time.time() * 1000})

    assert operator.hgetall(f"{wire.DEFAULT_QUEUE}:quarantine") == {b"poison": b"{}"}
    assert operator.hdel(f"{wire.DEFAULT_QUEUE}:quarantine", "poison") == 1
    assert operator.zcard(wire.DEFAULT_QUEUE) == 1
    assert operator.zadd("arq:abort", {"job": 1}) == 1
    assert set(operator.scan_iter("arq:*")) == {wire.DEFAULT_QUEUE.encode(), b"arq:abort"}


FORBIDDEN: dict[str, list[tuple[str | int, ...]]] = {
    "producer": [
        ("GET", "other"),
        ("DEL", wire.JOB_KEY + "job"),
        ("SET", wire.RESULT_KEY + "job", "forged"),
        ("SET", wire.IN_PROGRESS_KEY + "job", "1"),
        ("ZREM", wire.DEFAULT_QUEUE, "job"),
        ("HSET", f"{wire.DEFAULT_QUEUE}:owners", "job", "me"),
        ("KEYS", "*"),
        ("SCAN", 0),
        ("EVAL", "return redis.call('DEL', 'arq:queue')", 0),
        ("EVAL", "return redis.call('SET', 'arq:result:job', 'forged')", 0),
    ],
    "worker": [
        ("GET", "other"),
        ("SET", "other", 1),
        ("KEYS", "*"),
        ("EVAL", "return redis.call('SET', 'other', 1)", 0),
        ("SUBSCRIBE", "other"),
        ("PUBLISH", "other", "x"),
    ],
    "operator": [
        ("GET", "other"),
        ("SET", wire.JOB_KEY + "job", "forged"),
        ("SET", wire.RESULT_KEY + "job", "forged"),
        ("DEL", wire.DEFAULT_QUEUE),
        ("HDEL", f"{wire.DEFAULT_QUEUE}:owners", "job"),
        ("KEYS", "*"),
    ],
}
EVERYBODY: list[tuple[str | int, ...]] = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "dir", "/"),
    ("SHUTDOWN",),
    ("ACL", "LIST"),
    ("REPLICAOF", "NO", "ONE"),
    ("SCRIPT", "FLUSH"),
    ("SAVE",),
    ("MODULE", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("MONITOR",),
]


@pytest.mark.parametrize("user", USERS)
def test_what_is_not_their_work_is_refused(guarded: RedisServer, user: str) -> None:
    client = connect(guarded, user)
    for command in [*EVERYBODY, *FORBIDDEN[user]]:
        with pytest.raises(redis.ResponseError, match=r"permission|NOPERM|can't (run|access)"):
            client.execute_command(*command)


def test_nobody_can_log_in_before_a_password_is_set() -> None:
    for line in USERS_FILE.read_text().splitlines():
        assert "nopass" not in line
        assert ">" not in line
        assert line == "user default off" or " on resetpass " in line
