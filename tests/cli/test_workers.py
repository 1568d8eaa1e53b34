"""`workers list`: the living and the dead."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from db.models import JobRun, WorkerHeartbeat
from holdfast.ids import uuid7
from tests.cli.command import invoke
from tests.cli.tables import Tables

KEYS = ["worker_id", "host", "pid", "queues", "state", "since", "started_at", "last_seen_at", "silent_s", "running"]


@pytest.fixture
def two_workers(tables: Tables) -> None:
    """One that drains with two runs, and a dead one of a version that did not say what it did."""
    now = datetime.now(UTC)
    heartbeats: list[dict[str, Any]] = [
        {"worker_id": "ada:1:x", "pid": 1, "started_at": now - timedelta(hours=1), "heartbeat_at": now}
        | {"state": "draining", "state_since": now - timedelta(seconds=9), "queues": ["staging:high", "low"]},
        {"worker_id": "bob:2:y", "pid": 2, "started_at": now - timedelta(hours=2)}
        | {"heartbeat_at": now - timedelta(minutes=5)},
    ]
    for row in heartbeats:
        tables.change(insert(WorkerHeartbeat).values(host="here", queue_home="redis://h:1/0", **row))
    run = {"kind": "import_tasks", "queue": "low", "request": {}, "enqueued_at": now, "due_at": now}
    for number, state in enumerate(("running", "running", "succeeded")):
        row = {"id": uuid7(), "job_id": str(number), "state": state, "worker_id": "ada:1:x"}
        tables.change(insert(JobRun).values(**run, **row))


@pytest.mark.usefixtures("two_workers")
def test_as_json() -> None:
    workers = invoke("workers", "list", "--json").document["workers"]
    assert [list(worker) for worker in workers] == [[*KEYS, "alive"]] * 2
    ada, bob = workers
    shown = [ada[key] for key in ("worker_id", "pid", "queues", "state", "running", "alive")]
    assert shown == ["ada:1:x", 1, ["staging:high", "low"], "draining", 2, True]
    assert [bob[key] for key in ("queues", "state", "running", "alive")] == [None, "ready", 0, False]
    assert bob["since"] == bob["started_at"]
    assert bob["silent_s"] >= 300


@pytest.mark.usefixtures("two_workers")
def test_for_eyes() -> None:
    ada, bob = invoke("workers", "list").out.splitlines()
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"ada:1:x  draining since {time}  seen \d+ s ago  2 running  staging:high, low", ada)
    assert re.fullmatch(rf"bob:2:y  dead \(was ready\) since {time}  seen 30\d s ago  0 running", bob)


def test_none(tables: Tables) -> None:
    assert tables.runs() == []
    ended = invoke("workers", "list")
    assert (ended.code, ended.out, ended.err) == (0, "", "no workers to show\n")
