"""`holdfast.Client` with a real Redis and a real worker process: from the request to the typed report."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr, ValidationError

from db import migrate
from db.settings import DatabaseSettings
from holdfast import (
    Client,
    ImportReport,
    ImportTasks,
    RunExists,
    RunFailed,
    RunNotFound,
    RunState,
    SyncClient,
    wire,
)
from holdfast.ids import uuid7
from samples.make_tasks import FIELD_MAP
from tests.queue.workplace import PATIENCE_S, UNKEYED, Workplace, assert_counts
from tests.servers import RedisServer

FAR = timedelta(hours=1)


@pytest.fixture(scope="module")
def place(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """One worker for all tests of this file, on SQLite."""
    redis_server.flush()
    place = Workplace(redis_server.url, tmp_path_factory.mktemp("client"))
    place.imports.mkdir()
    with place.started_worker():
        yield place


@pytest.fixture
async def client(place: Workplace) -> AsyncIterator[Client]:
    async with Client(place.redis_url) as client:
        yield client


@pytest.mark.smoke
async def test_a_run_is_followed_from_the_request_to_its_typed_report(place: Workplace, client: Client) -> None:
    path, expected = place.write_tasks("followed.csv", 5000)
    run = await client.enqueue(ImportTasks(source=str(path), mapping=UNKEYED, batch_rows=50))
    seen: list[tuple[RunState, int]] = []
    async with asyncio.timeout(PATIENCE_S):
        while not seen or not seen[-1][0].is_over:
            progress = await run.progress()
            seen.append((await run.status(), 0 if progress is None else progress.counters["rows_read"]))
            await asyncio.sleep(0.01)
    report = await run.result()
    assert type(report) is ImportReport
    assert_counts(report, expected, keyed=False)
    states = [state for state, _ in seen]
    assert list(dict.fromkeys(states))[-2:] == [RunState.RUNNING, RunState.SUCCEEDED]
    assert [rows for _, rows in seen] == sorted(rows for _, rows in seen)
    assert any(0 < rows < 5000 for _, rows in seen)
    last = await run.progress()
    assert last is not None
    assert (last.done, last.total, last.unit) == (path.stat().st_size, path.stat().st_size, "bytes")
    assert last.counters["rows_read"] == 5000


async def test_the_ledger_has_the_run_under_the_id_that_the_producer_got(place: Workplace, client: Client) -> None:
    run = await client.enqueue(place.import_request("ledger.csv"))
    report = await run.result(timeout_s=PATIENCE_S)
    async with place.ledger() as ledger:
        row = await ledger.run_of(run.id)
        (attempt,) = await ledger.attempts(row.id)
    assert (row.id, row.kind, row.queue) == (UUID(run.id), "import_tasks", "arq:queue")
    assert (row.state, row.fence, row.attempts, attempt.outcome) == ("succeeded", 1, 0, "succeeded")
    assert ImportReport.model_validate(row.report) == report


async def test_a_run_that_is_due_later_waits_until_then(place: Workplace, client: Client) -> None:
    at = datetime.now(UTC) + timedelta(seconds=2)
    run = await client.enqueue(place.import_request("later.csv"), at=at)
    assert await run.status() is RunState.WAITING
    await run.result(timeout_s=PATIENCE_S)
    async with place.ledger() as ledger:
        row = await ledger.run_of(run.id)
    assert row.started_at >= at - timedelta(milliseconds=1)


async def test_a_time_without_a_zone_is_refused_before_redis_is_asked(client: Client) -> None:
    naive = datetime(2030, 1, 31, 8, 30)  # noqa: DTZ001 - that is the point
    with pytest.raises(ValueError, match="at=2030-01-31T08:30:00 has no time zone"):
        await client.enqueue(ImportTasks(source="/nowhere"), at=naive)


async def test_an_id_is_taken_while_the_run_waits_and_while_its_result_is_kept(
    place: Workplace, client: Client
) -> None:
    request = place.import_request("taken.csv")
    waiting = await client.enqueue(request, at=datetime.now(UTC) + FAR)
    with pytest.raises(RunExists, match=waiting.id):
        await client.enqueue(request, run_id=waiting.id)
    over = await client.enqueue(request)
    await over.result(timeout_s=PATIENCE_S)
    with pytest.raises(RunExists, match=over.id):
        await client.enqueue(request, run_id=over.id)
    async with place.ledger() as ledger:
        assert len(await ledger.runs_of(over.id)) == 1


async def test_a_wait_that_is_too_long_ends_and_the_run_goes_on(place: Workplace, client: Client) -> None:
    run = await client.enqueue(place.import_request("slow.csv"), at=datetime.now(UTC) + FAR)
    with pytest.raises(TimeoutError):
        await run.result(timeout_s=0.05)
    assert await run.status() is RunState.WAITING
    with place.redis() as redis:
        redis.zadd(wire.DEFAULT_QUEUE, {run.id: 1})  # due now
    assert (await run.result(timeout_s=PATIENCE_S)).rows_read == 50


async def test_what_a_handle_is_told_fits_what_stands_in_redis(place: Workplace, client: Client) -> None:
    request = place.import_request("keys.csv")
    at = datetime.now(UTC) + FAR
    run = await client.enqueue(request, at=at)
    assert UUID(run.id).version == 7
    with place.redis() as redis:
        keys = {key.decode() for key in redis.keys(f"*{run.id}*")}
        assert keys == {f"arq:job:{run.id}"}
        assert redis.ttl(f"arq:job:{run.id}") == -1
        assert redis.zscore("arq:queue", run.id) == int(at.timestamp() * 1000)
        payload = json.loads(redis.get(f"arq:job:{run.id}"))
        assert payload == {
            "t": None,
            "f": "import_tasks",
            "a": [],
            "k": {"source": request.source, "mapping": FIELD_MAP},
            "et": payload["et"],
        }
        assert abs(payload["et"] - at.timestamp() * 1000 + FAR.total_seconds() * 1000) < PATIENCE_S * 1000
        redis.zadd("arq:queue", {run.id: 1})
        report = await run.result(timeout_s=PATIENCE_S)
        keys = {key.decode() for key in redis.keys(f"*{run.id}*")}
        assert keys == {f"arq:result:{run.id}", f"holdfast:progress:{run.id}"}
        assert 0 < redis.ttl(f"arq:result:{run.id}") <= 3600
        assert 0 < redis.ttl(f"holdfast:progress:{run.id}") <= 24 * 3600
        assert redis.zscore("arq:queue", run.id) is None
        result = json.loads(redis.get(f"arq:result:{run.id}"))
    assert result == {
        **payload,
        "t": 1,
        "s": True,
        "r": report.model_dump(mode="json"),
        "q": "arq:queue",
        "id": run.id,
        "st": result["st"],
        "ft": result["ft"],
    }
    assert result["et"] < result["st"] <= result["ft"]


@pytest.mark.parametrize(
    ("source", "mapping", "error_type", "words"),
    [
        ("/etc/passwd", {}, "outside_roots", "'/etc/passwd' is outside the import roots"),
        ("{imports}/missing.csv", {}, "not_found", "missing.csv"),
        ("{imports}/../data/holdfast.db", {}, "invalid_path", "holdfast.db"),
        ("{imports}/columns.csv", {"title": "headline"}, "missing_column", "headline"),
    ],
)
async def test_a_run_that_fails_says_why_by_type_and_message(
    place: Workplace, client: Client, source: str, mapping: dict[str, str], error_type: str, words: str
) -> None:
    place.write_tasks("columns.csv", 5)
    run = await client.enqueue(ImportTasks(source=source.format(imports=place.imports), mapping=mapping))
    with pytest.raises(RunFailed) as caught:
        await run.result(timeout_s=PATIENCE_S)
    assert caught.value.run_id == run.id
    assert caught.value.error_type == error_type
    assert words in caught.value.message
    assert "\n" not in caught.value.message
    assert await run.status() is RunState.FAILED
    async with place.ledger() as ledger:
        row = await ledger.run_of(run.id)
    assert (row.state, row.error) == ("failed", {"type": error_type, "message": caught.value.message})


@pytest.mark.parametrize(
    ("arguments", "keywords", "words"),
    [
        ([], {"source": "/a.csv", "sauce": "hot"}, "sauce: "),
        ([], {"source": 5}, "source: "),
        ([], {}, "source: "),
        ([], {"source": "/a.csv", "ctx": {}}, "ctx: "),
        ([], {"source": "/a.csv", "mapping": {"titel": "t"}}, "'titel' is not a field of a task"),
        ([], {"source": "/a.csv", "batch_rows": 0}, "batch_rows: "),
        (["/a.csv", 5], {}, "positional arguments: "),
    ],
)
async def test_an_invalid_request_fails_and_names_the_field(
    place: Workplace, client: Client, arguments: list[Any], keywords: dict[str, Any], words: str
) -> None:
    run_id = enqueue_raw(
        place, {"t": None, "f": "import_tasks", "a": arguments, "k": keywords, "et": 1_700_000_000_000}
    )
    with pytest.raises(RunFailed) as caught:
        await client.run(run_id, ImportReport).result(timeout_s=PATIENCE_S)
    assert caught.value.error_type == "invalid_request"
    assert words in caught.value.message
    async with place.ledger() as ledger:
        row = await ledger.run_of(run_id)
    assert (row.state, row.fence, row.error["type"]) == ("failed", 0, "invalid_request")


def test_a_wrong_request_cannot_even_be_made() -> None:
    with pytest.raises(ValidationError, match="sauce"):
        ImportTasks.model_validate({"source": "/a.csv", "sauce": "hot"})


async def test_a_run_that_redis_does_not_know_is_not_found(client: Client) -> None:
    run = client.run(str(uuid7()), ImportReport)
    with pytest.raises(RunNotFound, match=run.id):
        await run.status()
    with pytest.raises(RunNotFound, match=run.id):
        await run.result(timeout_s=PATIENCE_S)
    assert await run.progress() is None


def test_the_client_without_an_event_loop(place: Workplace) -> None:
    path, expected = place.write_tasks("sync.csv", 100)
    with SyncClient(place.redis_url) as client:
        waiting = client.enqueue(ImportTasks(source=str(path)), at=datetime.now(UTC) + FAR)
        assert (waiting.status(), waiting.progress()) == (RunState.WAITING, None)
        with pytest.raises(RunExists):
            client.enqueue(ImportTasks(source=str(path)), run_id=waiting.id)
        run = client.enqueue(ImportTasks(source=str(path), mapping=UNKEYED))
        assert_counts(run.result(timeout_s=PATIENCE_S), expected, keyed=False)
        again = client.run(run.id, ImportReport)
        assert again.status() is RunState.SUCCEEDED
        progress = again.progress()
        assert progress is not None
        assert progress.counters["rows_read"] == expected.rows
        with pytest.raises(RunNotFound):
            client.run(str(uuid7()), ImportReport).result()


def enqueue_raw(place: Workplace, payload: Any) -> str:
    """Enqueues what no client of ours would, and returns its id."""
    run_id = str(uuid7())
    with place.redis() as redis:
        redis.set(f"arq:job:{run_id}", payload if isinstance(payload, bytes) else json.dumps(payload))
        redis.zadd("arq:queue", {run_id: 1})
    return run_id


async def test_the_worker_on_postgresql(postgres_url: str, redis_url: str, tmp_path: Any) -> None:
    await migrate.upgrade(DatabaseSettings(_env_file=None, database_url=SecretStr(postgres_url)))
    place = Workplace(redis_url, tmp_path, postgres_url)
    path, expected = place.write_tasks("tasks.csv", 200)
    async with Client(redis_url, queue="imports") as client:
        run = await client.enqueue(ImportTasks(source=str(path), mapping=FIELD_MAP))
        with place.worker("--burst", "--queue", "imports") as worker:
            assert_counts(await run.result(timeout_s=PATIENCE_S), expected)
            assert worker.wait() == 0
    async with place.ledger() as ledger:
        row = await ledger.run_of(run.id)
    assert (row.id, row.state, row.queue) == (UUID(run.id), "succeeded", "imports")
