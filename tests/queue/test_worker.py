"""`python -m worker run` as a process, with a real Redis: how it starts, ends, logs, and what outlives it."""

import json
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from redis import asyncio as redis_asyncio
from sqlalchemy import func, select, update

from db.models import Task
from holdfast import Client, ImportReport, ImportTasks, RunFailed, RunState, outbox, wire
from holdfast.outbox import job_runs
from samples.make_tasks import FIELD_MAP
from tests.faults.history import Expected
from tests.processes import WorkerProcess, clean_environment
from tests.queue.workplace import PATIENCE_S, SUCCESS, Workplace, assert_counts, log_events
from tests.servers import RedisServer, free_port, wait_until
from tests.skips import made_or_skipped
from worker.queue.claims import Claimer, LeaseTerms
from worker.queue.scripts import QueueKeys

FAR = timedelta(hours=1)


@pytest.fixture
def place(redis_url: str, tmp_path: Path) -> Workplace:
    return Workplace(redis_url, tmp_path)


@pytest.mark.parametrize("grace_s", ["30", "0"], ids=["ends at a batch", "is cancelled in a batch"])
async def test_an_import_goes_on_where_a_deploy_has_interrupted_it(place: Workplace, grace_s: str) -> None:
    rows = 10_000
    path, expected = place.write_tasks("large.csv", rows)
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        run = await client.enqueue(ImportTasks(source=str(path), mapping=FIELD_MAP, batch_rows=50))
        with place.started_worker("first", SHUTDOWN_GRACE_S=grace_s) as first:
            await ledger.until(UUID(run.id), "running", rows_read=rows // 10)
            assert first.terminate() == 0
        left = await ledger.run_of(run.id)
        assert (left.state, left.reason, left.attempts, left.crashes, left.fence) == ("waiting", "interrupted", 0, 0, 1)
        assert left.cursor["source"]["position"]
        assert rows // 10 <= left.counters["rows_read"] < rows
        assert await run.status() == "waiting"
        with place.worker("--burst", name="second") as second:
            assert_counts(await run.result(timeout_s=PATIENCE_S), expected)
            assert second.wait() == 0
        over = await ledger.run_of(run.id)
        assert (over.state, over.attempts, over.crashes, over.fence) == ("succeeded", 0, 0, 2)
        attempts = await ledger.attempts(over.id)
        assert [(one.attempt, one.outcome) for one in attempts] == [(1, "interrupted"), (1, "succeeded")]
        async with ledger.manager.session(read_only=True) as session:
            tasks = (await session.execute(select(func.count()).select_from(Task))).scalar_one()
        assert tasks == expected.good
        assert await ledger.problems({run.id: SUCCESS}) == []
    assert "run interrupted" in [event["event"] for event in log_events(first)]


async def test_every_log_line_about_a_run_names_it(place: Workplace) -> None:
    async with Client(place.redis_url) as client:
        good = await client.enqueue(place.import_request())
        bad = await client.enqueue(ImportTasks(source="/etc/passwd"))
        with place.worker("--burst") as worker:
            assert worker.wait(PATIENCE_S) == 0
    events = log_events(worker)
    for run_id, end, level in ((good.id, "run succeeded", "info"), (bad.id, "run failed", "warning")):
        about = [event for event in events if event.get("run_id") == run_id]
        assert [event["event"] for event in about] == ["run started", end]
        assert {(event["kind"], event["attempt"]) for event in about} == {("import_tasks", 1)}
        assert about[-1]["level"] == level
    assert [event["event"] for event in events if "run_id" not in event][-2:] == ["worker started", "worker stopped"]


async def test_the_console_format_is_one_line_an_event_too(place: Workplace) -> None:
    async with Client(place.redis_url) as client:
        run = await client.enqueue(place.import_request())
        bad = await client.enqueue(ImportTasks(source="/etc/passwd"))
        with place.worker("--burst", LOG_FORMAT="console") as worker:
            assert worker.wait(PATIENCE_S) == 0
    assert "\x1b" not in worker.text
    for run_id, ends in ((run.id, "run succeeded"), (bad.id, "run failed")):
        about = [line for line in worker.text.splitlines() if run_id in line]
        assert ["run started" in about[0], ends in about[1], len(about)] == [True, True, 2]
        assert all("kind=import_tasks" in line and "attempt=1" in line for line in about)


@pytest.mark.parametrize("log_format", ["console", "json"])
async def test_it_works_though_its_log_cannot_be_written(place: Workplace, log_format: str) -> None:
    place.folder.mkdir(exist_ok=True)
    (place.folder / "worker.log").symlink_to("/dev/full")
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        good = await client.enqueue(place.import_request())
        bad = await client.enqueue(ImportTasks(source="/etc/passwd"))
        with place.worker("--burst", LOG_FORMAT=log_format) as worker:
            assert worker.wait(PATIENCE_S) == 0
        assert [await run.status() for run in (good, bad)] == ["succeeded", "failed"]
        assert sorted(run.state for run in await ledger.runs()) == ["failed", "succeeded"]


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("REDIS_URL", "redis://:hunter2@127.0.0.1:{port}/0", "REDIS_URL redis://127.0.0.1:{port}/0: "),
        ("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:{port}/d", "127.0.0.1:{port}/d: no connection"),
        ("DATABASE_URL", "mariadb://u:hunter2@127.0.0.1:{port}/d", "127.0.0.1:{port}/d: no connection"),
        ("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1/d?statement_cache_size=x", "size=x: no connection ("),
        ("DATABASE_URL", "sqlite:///{folder}/none/holdfast.db", "none/holdfast.db: no connection"),
        ("DATABASE_URL", "sqlite:///{folder}/empty.db", "run `python -m worker db upgrade`"),
    ],
)
def test_a_server_that_is_not_there_is_one_line_and_exit_code_1(
    place: Workplace, setting: str, value: str, words: str
) -> None:
    names = {"port": free_port(), "folder": place.folder}
    with place.worker(STARTUP_PATIENCE_S="0.2", **{setting: value.format(**names)}) as worker:
        assert worker.wait() == 1
    assert_one_error(worker, words.format(**names))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("REDIS_URL", "http://:hunter2@localhost"), ("DATABASE_URL", "oracle://u:hunter2@localhost/d")],
)
def test_a_url_that_is_none_of_ours_is_one_line_and_exit_code_2(place: Workplace, setting: str, value: str) -> None:
    with place.worker(**{setting: value}) as worker:
        assert worker.wait() == 2
    assert_one_error(worker, setting)


def assert_one_error(worker: WorkerProcess, words: str) -> None:
    """Asserts that the output is log lines and then the error in one line, without the password."""
    *log, last = worker.text.splitlines()
    assert last.startswith("error: ")
    assert words in last
    assert all(json.loads(line)["level"] == "warning" for line in log)
    assert "hunter2" not in worker.text


async def test_runs_that_wait_in_the_ledger_outlive_a_flush_of_redis(place: Workplace) -> None:
    soon = datetime.now(UTC) + timedelta(minutes=1)
    async with place.ledger() as ledger:
        async with ledger.manager.session() as session:
            run_ids = [await outbox.enqueue(session, place.import_request(), at=soon) for _ in range(3)]
        with place.started_worker("first") as first, place.redis() as redis:
            assert wait_until(lambda: redis.zcard(wire.DEFAULT_QUEUE) == len(run_ids), PATIENCE_S)
            assert first.terminate() == 0
            redis.flushall()
        async with ledger.manager.session() as session:
            await session.execute(update(job_runs).values(due_at=datetime.now(UTC)))
        with place.worker("--burst", name="second") as second:
            assert second.wait(PATIENCE_S) == 0
        assert {run.id: (run.state, run.fence) for run in await ledger.runs()} == dict.fromkeys(
            run_ids, ("succeeded", 1)
        )
        assert await ledger.problems({str(run_id): SUCCESS for run_id in run_ids}) == []
        async with Client(place.redis_url) as client:
            assert {await client.run(str(run_id), ImportReport).status() for run_id in run_ids} == {"succeeded"}


async def test_a_claim_that_a_dead_worker_left_in_redis_is_taken_away(place: Workplace) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        run = await client.enqueue(place.import_request())
        assert await _claim_and_die(place.redis_url) == [run.id]  # claimed, not yet admitted
        assert await run.status() == "running"
        with place.worker("--burst") as worker:
            assert (await run.result(timeout_s=PATIENCE_S)).rows_read == 50
            assert worker.wait() == 0
        assert await ledger.problems({run.id: SUCCESS}) == []


async def _claim_and_die(redis_url: str) -> list[str]:
    terms = LeaseTerms(
        token=b"dead",
        lease_ms=1000,
        in_progress_ms=24 * 3600 * 1000,
        max_payload_bytes=wire.MAX_PAYLOAD_BYTES,
        see_aborts=True,
    )
    async with redis_asyncio.Redis.from_url(redis_url) as connection:
        claims = await Claimer(connection, QueueKeys(wire.DEFAULT_QUEUE), terms).claim(10)
    return [claimed.job_id for claimed in claims]


async def test_a_run_that_is_over_is_not_run_again_but_answered_again(place: Workplace) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        good = await client.enqueue(place.import_request())
        bad = await client.enqueue(ImportTasks(source="/etc/passwd"))
        with place.redis() as redis:
            payloads = {run.id: redis.get(wire.JOB_KEY + run.id) for run in (good, bad)}
        with place.redis() as redis, place.started_worker() as worker:
            report = await good.result(timeout_s=PATIENCE_S)
            with pytest.raises(RunFailed) as failure:
                await bad.result(timeout_s=PATIENCE_S)
            before = [(await ledger.run_of(run.id), await ledger.attempts(UUID(run.id))) for run in (good, bad)]
            redis.flushall()
            for run_id, payload in payloads.items():  # as a Redis that was restored would hold them
                redis.set(wire.JOB_KEY + run_id, payload)
                redis.zadd(wire.DEFAULT_QUEUE, {run_id: 1})
            assert await good.result(timeout_s=PATIENCE_S) == report
            with pytest.raises(RunFailed) as again:
                await bad.result(timeout_s=PATIENCE_S)
            assert (again.value.error_type, again.value.message) == (failure.value.error_type, failure.value.message)
            assert redis.zcard(wire.DEFAULT_QUEUE) == 0
            assert worker.terminate() == 0
        after = [(await ledger.run_of(run.id), await ledger.attempts(UUID(run.id))) for run in (good, bad)]
        failed = Expected(0, frozenset({RunState.FAILED}), most_charged=1)
        assert await ledger.problems({good.id: SUCCESS, bad.id: failed}) == []
    assert [(run, len(attempts)) for run, attempts in after] == [(run, len(attempts)) for run, attempts in before]
    assert [event["event"] for event in log_events(worker)].count("run started") == 2


WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None; from worker.cli import main; main()"


@pytest.mark.parametrize(
    ("program", "loop"),
    [(("-m", "worker"), "uvloop"), (("-c", WITHOUT_UVLOOP), "asyncio")],
    ids=["with uvloop", "without"],
)
async def test_the_worker_runs_on_uvloop_where_it_is_installed(
    place: Workplace, program: Sequence[str], loop: str
) -> None:
    async with Client(place.redis_url) as client:
        run = await client.enqueue(place.import_request())
        with place.worker("run", "--burst", program=program) as worker:
            assert (await run.result(timeout_s=PATIENCE_S)).rows_read == 50
            assert worker.wait() == 0
    (started,) = [event for event in log_events(worker) if event["event"] == "worker started"]
    assert started["event_loop"] == loop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_ends_at_a_signal(place: Workplace, number: signal.Signals) -> None:
    with place.started_worker() as worker:
        os.kill(worker.pid, number)
        assert worker.wait() == 0
    assert log_events(worker)[-1]["event"] == "worker stopped"


def test_a_password_that_needs_encoding_and_a_folder_with_a_space(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    with made_or_skipped(
        lambda: RedisServer(extra_args=["--user", "ada", "on", ">a/b%", "~*", "+@all"]), pytestconfig
    ) as server:
        guarded = Workplace(f"redis://ada:a%2Fb%25@127.0.0.1:{server.port}/", tmp_path)
        with guarded.worker("--burst") as worker:
            assert worker.wait() == 0, worker.text
    embedded = clean_environment(HOLDFAST_DATA_DIR=str(tmp_path / "my data"))
    with WorkerProcess(embedded, tmp_path, arguments=["run", "--burst"], name="embedded") as worker:
        assert worker.wait() == 0, worker.text
