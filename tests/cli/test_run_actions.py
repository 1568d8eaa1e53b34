"""`runs cancel` and `runs retry`: the ledger changes, and Redis hears of it at once where it can."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
import redis
from sqlalchemy import insert

from db.models import JobRun
from holdfast import wire
from tests.cli.command import invoke
from tests.cli.tables import Tables
from tests.servers import RedisServer, SentinelServer, free_port
from tests.skips import made_or_skipped

LONG_AGO = datetime.now(UTC) - timedelta(days=30)
FAILED, WAITING = (f"01900000-0000-7000-8000-00000000000{number}" for number in (1, 2))


@pytest.fixture
def queue(redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("REDIS_URL", redis_url)
    return redis.Redis.from_url(redis_server.url)


@pytest.fixture(autouse=True)
def two_runs(tables: Tables) -> None:
    """A failed run and one that waits for tomorrow, both older than any usual look goes back."""
    common = {"kind": "import_tasks", "queue": "arq:queue", "request": {"source": "/a.csv"}, "enqueued_at": LONG_AGO}
    failed = {"id": UUID(FAILED), "job_id": FAILED, "state": "failed", "due_at": LONG_AGO}
    waiting = {"id": UUID(WAITING), "job_id": WAITING, "state": "waiting", "due_at": datetime.now(UTC) + timedelta(1)}
    tables.change(insert(JobRun).values([{**common, **failed}, {**common, **waiting}]))


def test_a_run_that_is_retried_is_in_the_queue_at_once(queue: Any) -> None:
    assert invoke("runs", "retry", FAILED, "--json").document == {
        "runs": [{"run_id": FAILED, "state": "waiting", "done": True}]
    }
    assert queue.zrange(wire.DEFAULT_QUEUE, 0, -1) == [FAILED.encode()]
    assert wire.read_job(queue.get(wire.JOB_KEY + FAILED))["k"] == {"source": "/a.csv"}


def test_the_producer_of_a_run_that_is_cancelled_is_told_at_once(queue: Any) -> None:
    assert invoke("runs", "cancel", WAITING).out == f"{WAITING}  cancelled\n"
    told = wire.read_result(queue.get(wire.RESULT_KEY + WAITING))
    assert (told.state, told.message) == ("cancelled", "cancelled before it started")


@pytest.mark.parametrize(
    ("action", "run_id", "state"), [("retry", FAILED, "waiting"), ("cancel", WAITING, "cancelled")]
)
def test_without_redis_the_ledger_knows_all_the_same(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, action: str, run_id: str, state: str
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}")
    ended = invoke("runs", action, run_id)
    assert (ended.code, ended.out) == (0, f"{run_id}  {state}\n")
    assert ended.err.endswith("it hears of it later, from a worker\n")
    assert {str(run.id): run.state for run in tables.runs()}[run_id] == state


def test_a_run_that_cannot_is_named(queue: Any) -> None:
    ended = invoke("runs", "retry", WAITING)
    assert ended.code == 1
    assert ended.error == f"run {WAITING} cannot be waiting: it is not in the ledger, or not in a state for that"
    assert queue.dbsize() == 0


@pytest.mark.parametrize(
    ("action", "run_id", "key"), [("retry", FAILED, wire.JOB_KEY), ("cancel", WAITING, wire.RESULT_KEY)]
)
def test_redis_is_found_by_its_sentinels(
    queue: Any,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
    action: str,
    run_id: str,
    key: str,
) -> None:
    with made_or_skipped(lambda: SentinelServer(redis_server), pytestconfig) as sentinel:
        monkeypatch.setenv("REDIS_URL", sentinel.url)
        ended = invoke("runs", action, run_id)
    assert (ended.code, ended.err) == (0, "")
    assert queue.exists(key + run_id)


def test_a_run_that_is_named_twice_is_cancelled_once(queue: Any) -> None:
    ended = invoke("runs", "cancel", WAITING, WAITING.upper(), "--json")
    assert (ended.code, ended.document) == (0, {"runs": [{"run_id": WAITING, "state": "cancelled", "done": True}]})
