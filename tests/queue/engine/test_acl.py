"""The users of `deploy/redis-users.acl` can do their work, and nothing that is not their work."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from arq.connections import RedisSettings, create_pool

from holdfast import Client, wire
from holdfast.errors import RunCancelled
from holdfast.requests import ImportReport, ImportTasks
from holdfast.states import RunState
from tests import skips
from tests.processes import CHECKOUT
from tests.queue.engine.room import Room
from tests.servers import RedisServer

USERS_FILE = CHECKOUT / "deploy" / "redis-users.acl"
USERS = ("producer", "worker", "operator")
ADMIN = "user admin on nopass ~* &* +@all\n"


@pytest.fixture
def guarded(tmp_path: Path, pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    """A Redis with the users of the file, their names as passwords, and an `admin` for the test."""
    lines = USERS_FILE.read_text()
    for user in USERS:
        assert f"user {user} on resetpass " in lines
        lines = lines.replace(f"user {user} on resetpass ", f"user {user} on >{user} ")
    lines = lines.replace("user default off\n", "user default on nopass ~* &* +@all\n")  # for the fixture's own calls
    file = tmp_path / "users.acl"
    file.write_text(lines + ADMIN)
    made = skips.made_or_skipped(lambda: RedisServer(extra_args=["--aclfile", str(file)]), pytestconfig)
    with made as server:
        admin = connect(server, "admin")
        admin.acl_setuser("default", enabled=False)
        yield server
        denied = [entry["username"] + " " + entry["object"] for entry in admin.acl_log() if entry["reason"] != "auth"]
        print("denied:", denied)  # pytest shows it when the test fails
        admin.acl_setuser("default", enabled=True)
        admin.close()


def connect(server: RedisServer, user: str) -> Any:
    """A client of that user."""
    return redis.Redis(port=server.port, username=user, password=user, socket_timeout=10)


def url_of(server: RedisServer, user: str) -> str:
    """The URL for that user."""
    return f"redis://{user}:{user}@127.0.0.1:{server.port}/0"


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

        assert denied(room) == []
        assert "the queue is polled" not in worker.text
        worker.terminate()
        assert denied(room) == []


def denied(room: Room) -> list[str]:
    """What Redis has refused anybody."""
    refused = [entry for entry in room.redis.acl_log() if entry["reason"] != "auth"]
    # What redis-py tries and can do without; Redis 7.0, which the file is for as well, does not know it.
    return [f"{entry['username']} {entry['object']}" for entry in refused if entry["object"] != "client|setinfo"]


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
        assert denied(room) == []


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
