"""What anybody who can write to Redis may have written: nothing of it runs, kills or blocks; all of it is told."""

import json
from pathlib import Path

import pytest

from holdfast import wire
from tests.queue.engine.poison import BAD_IDS, ODD_IDS, bad_payloads, payload, refused_payloads
from tests.queue.engine.room import Room, ids

QUEUE = wire.DEFAULT_QUEUE
QUARANTINE = f"{QUEUE}:quarantine"
GOOD = ids("good", 20)


def put(room: Room, job_id: bytes, data: bytes | None = None, score: float = 1.0) -> None:
    """Writes an entry that is due before all good ones, and its payload."""
    if data is not None:
        room.redis.set(wire.JOB_KEY.encode() + job_id, data)
    room.redis.zadd(QUEUE, {job_id: score})


def quarantined(room: Room) -> dict[bytes, str]:
    """The reasons by job id."""
    return {job_id: json.loads(entry)["reason"] for job_id, entry in room.redis.hgetall(QUARANTINE).items()}


def serve(room: Room, expected: int) -> None:
    """Lets a worker meet what was put, with good jobs behind it; returns when everything is told."""
    room.enqueue_all("quick", GOOD)
    worker = room.start()
    room.wait_for_results(GOOD)
    room.wait(lambda: room.redis.hlen(QUARANTINE) == expected, f"{expected} entries in quarantine")
    room.wait(lambda: room.left_behind() == [], "an empty queue")
    assert {job_id for job_id in room.count("start") if job_id in GOOD} == set(GOOD)
    assert worker.alive


def test_bad_payloads_are_parked_with_their_reasons(room: Room, tmp_path: Path) -> None:
    bomb = tmp_path / "bomb"
    bad = bad_payloads(bomb)
    for job_id, data in bad.items():
        put(room, job_id.encode(), data)
    serve(room, len(bad))

    assert not bomb.exists()
    assert set(room.count("start")) == set(GOOD)
    reasons = quarantined(room)
    assert set(reasons) == {job_id.encode() for job_id in bad}
    assert all(reasons.values())
    assert "limit is 1048576" in reasons[b"50 MB"]
    assert "JSON" in reasons[b"pickled bomb"]
    assert "f must be text" in reasons[b"names are a list"]
    assert all(not room.wait_for_results([job_id])[job_id]["s"] for job_id in bad)


def test_jobs_that_cannot_be_called_are_refused(room: Room) -> None:
    refused = refused_payloads()
    for job_id, data in refused.items():
        put(room, job_id.encode(), data)
    unknown = {name.encode() for name in ("unknown function", "dunder function", "empty function")}
    serve(room, len(unknown))

    results = room.wait_for_results(list(refused))
    assert set(quarantined(room)) == unknown
    assert not any(result["s"] for result in results.values())
    assert "'no_such_function' not found" in results["unknown function"]["r"]["error"]["message"]
    assert "retries exceeded" in results["a huge try"]["r"]["error"]["message"]


def test_bad_ids_are_parked_and_odd_ones_run(room: Room) -> None:
    for job_id in BAD_IDS.values():
        put(room, job_id, payload())
    for job_id in ODD_IDS.values():
        put(room, job_id, payload())
    serve(room, len(BAD_IDS))

    assert set(quarantined(room)) == set(BAD_IDS.values())
    assert set(room.count("start")) == {*GOOD, *(job_id.decode() for job_id in ODD_IDS.values())}


@pytest.mark.parametrize("kind", ["list", "hash", "set", "zset", "stream", "string"])
def test_keys_of_a_job_have_a_wrong_type(room: Room, kind: str) -> None:
    prefixes = ["arq:job:", "arq:retry:", "arq:in-progress:", "arq:result:", "holdfast:progress:"]
    for prefix in prefixes:
        job_id = f"bad {prefix}"
        put(room, job_id.encode(), payload())
        _write(room, prefix + job_id, kind)
    parked = 1  # the payload itself; the other keys are overwritten or not read
    if kind == "string":
        room.redis.delete("arq:in-progress:bad arq:in-progress:")  # who has that is somebody else's, for stock arq too
    serve(room, parked)

    assert set(quarantined(room)) == {b"bad arq:job:"}
    assert set(room.count("start")) == {*GOOD, *(f"bad {prefix}" for prefix in prefixes[1:])}


@pytest.mark.parametrize("kind", ["list", "hash", "set", "zset", "stream", "string"])
def test_keys_of_the_queue_have_a_wrong_type(room: Room, kind: str) -> None:
    right = {f"{QUEUE}:leases": "zset", "arq:abort": "zset", f"{QUEUE}:intake": "list"}
    right |= {QUEUE + suffix: "hash" for suffix in (":scores", ":owners", ":quarantine")}
    wrong = [key for key in right if right[key] != kind]
    for key in wrong:
        _write(room, key, kind)
    put(room, b"bad", b"garbage")
    serve(room, 1)

    for key in wrong:
        assert room.redis.type(f"{key}:damaged").decode() == kind
        assert f"{key} had a wrong type, it is now {key}:damaged" in room.workers[0].text


def test_the_queue_itself_has_a_wrong_type(room: Room) -> None:
    worker = room.start()
    room.redis.set(QUEUE, b"oops")
    worker.wait_for(f"{QUEUE} had a wrong type")

    room.enqueue_all("quick", GOOD)
    room.wait_for_results(GOOD)

    assert room.redis.get(f"{QUEUE}:damaged") == b"oops"
    assert worker.alive


@pytest.mark.parametrize("suffix", [":leases", ":scores", ":owners"])
def test_a_claim_that_a_broken_key_hinders_takes_nothing(room: Room, suffix: str) -> None:
    """A script that fails halfway keeps what it has written: a lease without an owner would have to run out."""
    room.start(lease_s=600)
    room.redis.set(QUEUE + suffix, b"oops")
    room.enqueue("quick", job_id="job")
    room.wait_for_results(["job"])

    assert room.count("start") == {"job": 1}


def test_keys_break_while_jobs_run(room: Room) -> None:
    jobs = ids("job", 10)
    worker = room.start()
    room.enqueue_all("gated", jobs)
    room.wait_for("start", jobs)

    for suffix in (":leases", ":scores", ":owners"):
        room.redis.set(QUEUE + suffix, b"oops")
    room.open_gate()
    results = room.wait_for_results(jobs)

    assert all(result["s"] for result in results.values())
    assert room.count("start") == dict.fromkeys(jobs, 1)
    assert worker.alive


def test_garbage_in_the_values_of_our_own_keys(room: Room) -> None:
    garbage = ["", "x", "nan", "inf", "-inf", "1e999", "0x10", " 7 ", "9" * 400]
    entries = [f"entry-{number}" for number in range(len(garbage))]
    room.enqueue_all("retrying", entries, 1)
    expired = dict.fromkeys(entries, 1)
    room.redis.zadd(f"{QUEUE}:leases", {**expired, "ghost": 1, "older ghost": float("-inf")})
    room.redis.hset(f"{QUEUE}:scores", mapping={**dict(zip(entries, garbage, strict=True)), "ghost": "x"})
    room.redis.hset(f"{QUEUE}:owners", mapping={**dict(zip(entries, garbage, strict=True)), "ghost": "\0"})
    for entry, text in zip(entries[:-1], garbage, strict=False):
        room.redis.set(wire.RETRY_KEY + entry, text if text != " 7 " else b"\xff")
    serve(room, 0)

    assert all(result["s"] for result in room.wait_for_results(entries).values())
    assert room.count("end") == dict.fromkeys([*GOOD, *entries], 1)


def test_scores_at_the_ends_of_the_scale(room: Room) -> None:
    put(room, b"first", payload(), float("-inf"))
    put(room, b"negative", payload(), -1e300)
    put(room, b"fraction", payload(), 0.5)
    put(room, b"never", payload(), float("inf"))
    put(room, b"late", payload(), 1e300)
    room.enqueue_all("quick", GOOD)
    worker = room.start()
    room.wait_for_results([*GOOD, "first", "negative", "fraction"])

    assert set(room.count("start")) == {*GOOD, "first", "negative", "fraction"}
    assert room.redis.zcard(QUEUE) == 2
    assert worker.alive


def test_garbage_among_the_aborts(room: Room) -> None:
    worker = room.start()
    room.enqueue("gated", job_id="job")
    room.wait_for("start", ["job"])
    room.redis.zadd("arq:abort", {b"\xff\xfe": 1, b"": 2, b"\0": float("inf")})
    room.redis.zadd("arq:abort", dict.fromkeys(ids("old", 1000), 3))
    room.enqueue_all("quick", GOOD)
    room.wait_for_results(GOOD)
    room.redis.zadd("arq:abort", {"job": 4})
    result = room.wait_for_results(["job"])["job"]

    assert result["r"]["error"]["state"] == "cancelled"
    assert worker.alive


@pytest.mark.parametrize("removed", ["expired", "deleted"])
def test_an_entry_without_its_payload_is_told(room: Room, removed: str) -> None:
    room.enqueue("quick", job_id="job")
    if removed == "expired":
        room.redis.pexpire(wire.JOB_KEY + "job", 1)
        room.wait(lambda: not room.redis.exists(wire.JOB_KEY + "job"), "its expiry")
    else:
        room.redis.delete(wire.JOB_KEY + "job")
    serve(room, 1)

    assert quarantined(room) == {b"job": "the payload is gone: it expired, or was removed"}
    assert room.wait_for_results(["job"])["job"]["r"]["error"]["message"] == "job expired"
    assert "job job expired" in room.workers[0].text


def test_a_payload_that_expires_while_its_job_runs_ends_no_run(room: Room) -> None:
    room.start()
    room.enqueue("gated", job_id="ends")
    room.enqueue("retrying", 1, "gate", job_id="retries")  # arq: an expired job is not retried
    room.wait_for("start", ["ends", "retries"])
    room.redis.delete(wire.JOB_KEY + "ends", wire.JOB_KEY + "retries")
    room.open_gate()
    results = room.wait_for_results(["ends", "retries"])

    assert results["ends"]["s"]
    assert results["retries"]["r"]["error"]["message"] == "job expired"
    assert set(quarantined(room)) == {b"retries"}


def test_a_full_quarantine_is_said(room: Room) -> None:
    room.redis.hset(QUARANTINE, mapping={f"old-{number}": "{}" for number in range(10_000)})
    put(room, b"bad", b"garbage")
    worker = room.start()
    worker.wait_for(f"{QUARANTINE} is full, not parked: bad")

    assert not room.wait_for_results(["bad"])["bad"]["s"]


def _write(room: Room, key: str, kind: str) -> None:
    room.redis.delete(key)
    write = {
        "list": lambda: room.redis.rpush(key, "x"),
        "hash": lambda: room.redis.hset(key, "x", "y"),
        "set": lambda: room.redis.sadd(key, "x"),
        "zset": lambda: room.redis.zadd(key, {"x": 1}),
        "stream": lambda: room.redis.xadd(key, {"x": "y"}),
        "string": lambda: room.redis.set(key, "x"),
    }
    write[kind]()
