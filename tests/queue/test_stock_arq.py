"""Stock arq as the producer: its pool with a JSON serializer works with our worker, and a pickle never executes."""

import asyncio
import json
import pickle
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import Job, JobDef, JobResult, JobStatus, SerializationError

from holdfast import Client, ImportReport, RunFailed, wire
from holdfast.ids import uuid7
from tests.processes import WorkerProcess
from tests.queue.workplace import PATIENCE_S, UNKEYED, Workplace, assert_counts, log_events
from tests.servers import RedisServer

# arq closes its pool by a name that redis-py has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")


def to_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode()


@pytest.fixture(scope="module")
def place(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    redis_server.flush()
    return Workplace(redis_server.url, tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def worker(place: Workplace) -> Iterator[WorkerProcess]:
    """One worker for all tests of this file; each must leave it alive."""
    with place.started_worker() as worker:
        yield worker


@pytest.fixture(autouse=True)
def survival(worker: WorkerProcess) -> Iterator[None]:
    """Whatever a test has put into the queue: the worker lives."""
    yield
    assert worker.alive, worker.text


@pytest.fixture
async def pool(place: Workplace) -> AsyncIterator[ArqRedis]:
    settings = RedisSettings.from_dsn(place.redis_url)
    pool = await create_pool(settings, job_serializer=to_json, job_deserializer=json.loads)
    yield pool
    await pool.aclose(close_connection_pool=True)


async def enqueued(pool: ArqRedis, *arguments: Any, **keywords: Any) -> Job:
    job = await pool.enqueue_job(*arguments, **keywords)
    assert job is not None
    return job


async def test_enqueue_job_with_keywords(place: Workplace, pool: ArqRedis) -> None:
    path, expected = place.write_tasks("keywords.csv", 5000)
    job = await enqueued(pool, "import_tasks", source=str(path), mapping=UNKEYED, batch_rows=50)
    statuses = [await job.status()]
    async with asyncio.timeout(PATIENCE_S):
        while statuses[-1] is not JobStatus.complete:
            await asyncio.sleep(0.01)
            statuses.append(await job.status())
    assert list(dict.fromkeys(statuses))[-2:] == [JobStatus.in_progress, JobStatus.complete]
    report = await job.result(timeout=PATIENCE_S, poll_delay=0.02)
    assert_counts(ImportReport.model_validate(report), expected, keyed=False)
    info = await job.info()
    assert isinstance(info, JobResult)
    assert (info.success, info.function, info.job_id, info.queue_name) == (
        True,
        "import_tasks",
        job.job_id,
        "arq:queue",
    )
    assert info.kwargs == {"source": str(path), "mapping": UNKEYED, "batch_rows": 50}
    assert info.result == report
    assert info.enqueue_time <= info.start_time <= info.finish_time
    async with place.ledger() as ledger:
        row = await ledger.run_of(job.job_id)
    assert (row.state, row.id.version, row.report) == ("succeeded", 7, report)


async def test_enqueue_job_with_one_positional_object(place: Workplace, pool: ArqRedis) -> None:
    path, expected = place.write_tasks("positional.csv", 100)
    job = await enqueued(pool, "import_tasks", {"source": str(path), "mapping": UNKEYED})
    report = await job.result(timeout=PATIENCE_S, poll_delay=0.02)
    assert_counts(ImportReport.model_validate(report), expected, keyed=False)


async def test_a_deferred_job_is_shown_as_such(place: Workplace, pool: ArqRedis) -> None:
    source = place.import_request().source
    job = await enqueued(pool, "import_tasks", source=source, _defer_by=3600)
    assert await job.status() is JobStatus.deferred
    info = await job.info()
    assert type(info) is JobDef
    assert (info.function, info.kwargs) == ("import_tasks", {"source": source})


async def test_a_failed_job_gives_its_error_as_an_object(pool: ArqRedis) -> None:
    job = await enqueued(pool, "import_tasks", source="/etc/passwd")
    with pytest.raises(SerializationError, match="outside_roots"):
        await job.result(timeout=PATIENCE_S, poll_delay=0.02)
    info = await job.result_info()
    assert info is not None
    assert info.success is False
    error = info.result["error"]
    assert sorted(error) == ["message", "state", "type"]
    assert (error["type"], error["state"]) == ("outside_roots", "failed")
    assert "/etc/passwd" in error["message"]


async def test_an_id_that_is_used_again_after_its_result_expired_is_a_new_run(place: Workplace, pool: ArqRedis) -> None:
    request = place.import_request("again.csv").payload() | {"mapping": UNKEYED}
    first = await enqueued(pool, "import_tasks", **request, _job_id="nightly")
    await first.result(timeout=PATIENCE_S, poll_delay=0.02)
    assert await pool.enqueue_job("import_tasks", **request, _job_id="nightly") is None
    await pool.delete("arq:result:nightly")  # what its expiry does
    second = await enqueued(pool, "import_tasks", **request, _job_id="nightly")
    report = await second.result(timeout=PATIENCE_S, poll_delay=0.02)
    assert report["inserted"] > 0
    async with place.ledger() as ledger:
        runs = await ledger.runs_of("nightly")
    assert [run.state for run in runs] == ["succeeded", "succeeded"]
    assert runs[0].id != runs[1].id
    assert runs[0].enqueued_at > runs[1].enqueued_at


class Canary:
    """Leaves a file behind when somebody unpickles it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


async def test_a_pickle_never_executes(place: Workplace, tmp_path: Path) -> None:
    canary = Canary(tmp_path / "executed")
    pool = await create_pool(RedisSettings.from_dsn(place.redis_url))  # pickle is arq's default
    ids = [(await enqueued(pool, "import_tasks", canary)).job_id, "bare-pickle"]
    await pool.set("arq:job:bare-pickle", pickle.dumps(canary))
    await pool.zadd("arq:queue", {"bare-pickle": 1})
    async with Client(place.redis_url) as client:
        for job_id in ids:
            with pytest.raises(RunFailed, match="producers must use a JSON serializer") as caught:
                await client.run(job_id, ImportReport).result(timeout_s=PATIENCE_S)
            assert caught.value.error_type == "WireFormatError"
    await pool.aclose(close_connection_pool=True)
    assert not canary.path.exists()
    pickle.loads(pickle.dumps(canary))  # noqa: S301 - it would have been seen
    assert canary.path.exists()


async def test_an_unknown_function_fails_by_name(place: Workplace, pool: ArqRedis) -> None:
    job = await enqueued(pool, "import_everything", source="/a.csv")
    async with Client(place.redis_url) as client:
        with pytest.raises(RunFailed, match="import_everything") as caught:
            await client.run(job.job_id, ImportReport).result(timeout_s=PATIENCE_S)
    assert caught.value.error_type == "JobExecutionFailed"


NO_JOBS = (
    b"\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b"[" * 100_000,
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a.csv"}, "et": 1',
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a.csv"}}',
    b'{"t": null, "f": ["import_tasks"], "a": [], "k": {"source": "/a.csv"}, "et": 1}',
    b'{"t": "one", "f": "import_tasks", "a": [], "k": {"source": "/a.csv"}, "et": 1}',
    b'{"t": null, "f": "import_tasks", "a": 5, "k": {"source": "/a.csv"}, "et": 1}',
    b'{"t": null, "f": "import_tasks", "a": [], "k": ["source"], "et": 1}',
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a.csv"}, "et": "now"}',
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a.csv"}, "et": -1}',
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a.csv"}, "et": 1e300}',
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a.csv"}, "et": 900000000000000000}',
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a.csv", "batch_rows": NaN}, "et": 1}',
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a.csv", "batch_rows": 1e999}, "et": 1}',
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a\\u0000.csv"}, "et": 1}',
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a\\ud800.csv"}, "et": 1}',
    b'{"t": null, "f": "import_tasks", "a": [], "k": {"source": "/a\xed\xa0\x80.csv"}, "et": 1}',
)


async def test_a_payload_that_is_no_job_fails_and_harms_nobody(
    place: Workplace, pool: ArqRedis, worker: WorkerProcess
) -> None:
    payloads = {str(uuid7()): payload for payload in NO_JOBS}
    async with Client(place.redis_url) as client:
        for run_id, payload in payloads.items():
            await pool.set(wire.JOB_KEY + run_id, payload)
            await pool.zadd("arq:queue", {run_id: 1})
        good = await client.enqueue(place.import_request("good.csv"))
        for run_id, payload in payloads.items():
            with pytest.raises(RunFailed) as caught:
                await client.run(run_id, ImportReport).result(timeout_s=PATIENCE_S)
            assert caught.value.error_type == "WireFormatError", payload
            assert await pool.zscore("arq:queue", run_id) is None
        await good.result(timeout_s=PATIENCE_S)
    assert all(isinstance(event["event"], str) for event in log_events(worker))


async def test_an_entry_without_a_payload_fails(place: Workplace, pool: ArqRedis) -> None:
    run_id = str(uuid7())
    await pool.zadd("arq:queue", {run_id: 1})
    async with Client(place.redis_url) as client:
        with pytest.raises(RunFailed, match="job expired"):
            await client.run(run_id, ImportReport).result(timeout_s=PATIENCE_S)


@pytest.mark.parametrize("run_id", ["x" * 256, "an id with \x00"])
async def test_an_id_that_the_ledger_cannot_hold_fails(place: Workplace, pool: ArqRedis, run_id: str) -> None:
    await enqueued(pool, "import_tasks", source="/a.csv", _job_id=run_id)
    async with Client(place.redis_url) as client:
        with pytest.raises(RunFailed) as caught:
            await client.run(run_id, ImportReport).result(timeout_s=PATIENCE_S)
    assert caught.value.error_type == "invalid_id"


async def test_the_longest_id_that_a_client_takes_is_run(place: Workplace) -> None:
    async with Client(place.redis_url) as client:
        run = await client.enqueue(place.import_request("long.csv", rows=1), run_id="長" * wire.MAX_RUN_ID)
        assert (await run.result(timeout_s=PATIENCE_S)).rows_read == 1


async def test_an_escaped_backslash_is_no_escape(pool: ArqRedis) -> None:
    job = await enqueued(pool, "import_tasks", source="/etc/\\u0000")
    with pytest.raises(SerializationError, match="outside_roots"):
        await job.result(timeout=PATIENCE_S, poll_delay=0.02)
