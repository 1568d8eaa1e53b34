"""Cancelling and following: what a handle does to a run, and what it tells of a duplicate."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arq.connections import RedisSettings
from arq.worker import Worker as StockWorker
from arq.worker import func

from holdfast import Client, RunCancelled, RunFailed, RunNotFound, RunState, SyncClient, wire
from holdfast.ids import uuid7, uuid7_texts
from holdfast.run import MOST_FOLLOWED
from tests.queue.wire_hands import PATIENCE_S, Echo, EchoReport, Hands, until
from worker.queue import Worker

FAR = timedelta(hours=1)


@pytest.fixture
def hands(redis_url: str) -> Iterator[Hands]:
    hands = Hands(redis_url)
    yield hands
    hands.close()


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[Client]:
    async with Client(redis_url) as client:
        yield client


def worker(redis_url: str, worker_type: type[StockWorker], started: asyncio.Event) -> StockWorker:
    """A worker of arq's protocol that runs `echo` until it is cancelled."""

    async def echo(ctx: dict[str, Any], **request: Any) -> None:
        del ctx, request
        started.set()
        await asyncio.sleep(PATIENCE_S)

    return worker_type(
        functions=[func(echo, name="echo")],  # type: ignore[arg-type,unused-ignore]
        redis_settings=RedisSettings.from_dsn(redis_url),
        job_serializer=wire.dumps,
        job_deserializer=wire.read_job,
        allow_abort_jobs=True,
        handle_signals=False,
        poll_delay=0.05,
    )


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # arq's own
@pytest.mark.parametrize("worker_type", [StockWorker, Worker])
async def test_waiting_deferred_and_running_runs_end_as_cancelled(
    redis_url: str, client: Client, hands: Hands, worker_type: type[StockWorker]
) -> None:
    started = asyncio.Event()
    deferred = await client.enqueue(Echo(), at=datetime.now(UTC) + FAR)
    waiting = await client.enqueue(Echo())
    assert [await deferred.cancel(), await waiting.cancel()] == [True, True]
    serving = worker(redis_url, worker_type, started)
    task = asyncio.create_task(serving.async_run())
    try:
        for run in (deferred, waiting):
            with pytest.raises(RunCancelled, match=run.id):
                await run.result(timeout_s=PATIENCE_S)
            assert await run.status() is RunState.CANCELLED
        assert not started.is_set()
        running = await client.enqueue(Echo())
        async with asyncio.timeout(PATIENCE_S):
            await started.wait()
        assert await running.status() is RunState.RUNNING
        assert await running.cancel()
        with pytest.raises(RunCancelled, match=running.id) as caught:
            await running.result(timeout_s=PATIENCE_S)
        assert (caught.value.error_type, caught.value.duplicate_of) == ("cancelled", None)
        assert await running.cancel() is False
        await until(lambda: hands.redis.zcard("arq:abort") == 0)
    finally:
        await serving.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_cancelled_run_comes_first_so_that_it_ends_at_once(client: Client, hands: Hands) -> None:
    others = (await client.enqueue_many([Echo()] * 3)).runs
    late = await client.enqueue(Echo(), at=datetime.now(UTC) + FAR)
    assert await late.cancel()
    assert hands.waiting() == [late.id, *(run.id for run in others)]
    now_ms = datetime.now(UTC).timestamp() * 1000
    assert 0 <= now_ms - hands.redis.zscore("arq:abort", late.id) < PATIENCE_S * 1000


@pytest.mark.parametrize("claim", ["lease", "in-progress"])
async def test_the_claim_of_a_running_run_is_not_touched(client: Client, hands: Hands, claim: str) -> None:
    run = await client.enqueue(Echo())
    lease_end = int(datetime.now(UTC).timestamp() * 1000) + 60_000
    hands.redis.zadd("arq:queue", {run.id: lease_end})
    if claim == "lease":
        hands.redis.zadd("arq:queue:leases", {run.id: lease_end})
    else:
        hands.redis.set(wire.IN_PROGRESS_KEY + run.id, 1)
    assert await run.cancel()
    assert hands.redis.zscore("arq:queue", run.id) == lease_end
    assert hands.redis.zscore("arq:abort", run.id) is not None


async def test_what_redis_does_not_know_cannot_be_cancelled_unless_the_ledger_may(client: Client, hands: Hands) -> None:
    with pytest.raises(RunNotFound):
        await client.run(uuid7(), EchoReport).cancel()
    assert hands.redis.exists("arq:abort") == 0
    run = client.run(uuid7(), EchoReport, born_in_ledger=True)
    assert await run.cancel()
    assert hands.redis.zscore("arq:abort", run.id) is not None


async def test_a_duplicate_is_followed_to_the_run_that_stands_for_it(client: Client, hands: Hands) -> None:
    first, second = [await client.enqueue(Echo(), unique_key="k") for _ in range(2)]
    hands.fail(second.id, type="duplicate", message="taken", state="cancelled", duplicate_of=first.id)
    assert second.followed_id is None
    assert await second.status() is RunState.WAITING
    assert second.followed_id == first.id
    hands.redis.set(wire.IN_PROGRESS_KEY + first.id, 1)
    hands.redis.set(wire.PROGRESS_KEY + first.id, json.dumps({"done": 5}))
    assert await second.status() is RunState.RUNNING
    progress = await second.progress()
    assert progress is not None
    assert progress.done == 5
    waiting = asyncio.create_task(client.run(second.id, EchoReport).result())
    await until(lambda: hands.redis.info("stats")["tracking_total_keys"])
    hands.finish(first.id)
    assert await second.result() == await waiting == EchoReport(text=first.id)
    assert await second.status() is RunState.SUCCEEDED
    assert await second.cancel() is False


async def test_without_time_to_wait_a_run_is_looked_at_once(client: Client, hands: Hands) -> None:
    first, second = [await client.enqueue(Echo(), unique_key="k") for _ in range(2)]
    hands.fail(second.id, type="duplicate", message="taken", state="cancelled", duplicate_of=first.id)
    for run in (first, second):
        with pytest.raises(TimeoutError, match="was not over within 0 s: it goes on"):
            await run.result(timeout_s=0)
    hands.finish(first.id)
    for run in (first, second):
        assert await run.result(timeout_s=0) == EchoReport(text=first.id)
    with pytest.raises(RunNotFound):
        await client.run(uuid7(), EchoReport).result(timeout_s=0)


async def test_the_failure_of_the_followed_run_is_the_duplicates(client: Client, hands: Hands) -> None:
    first, second = [await client.enqueue(Echo(), unique_key="k") for _ in range(2)]
    hands.fail(second.id, type="duplicate", message="taken", state="cancelled", duplicate_of=first.id)
    hands.fail(first.id, type="broken", message="no", state="failed")
    with pytest.raises(RunFailed, match="no") as caught:
        await second.result()
    assert (caught.value.run_id, caught.value.error_type) == (first.id, "broken")
    assert await second.status() is RunState.FAILED


async def test_a_followed_run_that_only_the_ledger_has_is_waited_for(client: Client, hands: Hands) -> None:
    duplicate, original = uuid7_texts(2)
    hands.fail(duplicate, type="duplicate", message="taken", state="cancelled", duplicate_of=original)
    run = client.run(duplicate, EchoReport)
    assert await run.status() is RunState.WAITING
    with pytest.raises(TimeoutError):
        await run.result(timeout_s=0.05)
    hands.finish(original)
    assert await run.result() == EchoReport(text=original)


@pytest.mark.parametrize("length", [MOST_FOLLOWED, 1])
async def test_following_is_bounded(client: Client, hands: Hands, length: int) -> None:
    ids = uuid7_texts(length + 1)
    chain = [*ids, ids[0] if length == 1 else ids[-1] + "0"]
    for at, run_id in enumerate(ids):
        hands.fail(run_id, type="duplicate", message="taken", state="cancelled", duplicate_of=chain[at + 1])
    run = client.run(ids[0], EchoReport)
    with pytest.raises(RunCancelled) as caught:
        await run.result()
    assert caught.value.error_type == "duplicate"
    assert caught.value.duplicate_of in {*ids, chain[-1]}
    assert await run.status() in {RunState.CANCELLED, RunState.WAITING}


@pytest.mark.parametrize(
    ("state", "expected", "error"),
    [
        ("cancelled", RunState.CANCELLED, RunCancelled),
        ("quarantined", RunState.QUARANTINED, RunFailed),
        ("failed", RunState.FAILED, RunFailed),
        ("no such state", RunState.FAILED, RunFailed),
        ("running", RunState.FAILED, RunFailed),
    ],
)
async def test_an_end_without_a_report_has_its_state_and_its_error(
    client: Client, hands: Hands, state: str, expected: RunState, error: type[RunFailed]
) -> None:
    (run_id,) = uuid7_texts(1)
    hands.fail(run_id, type="kind", message="why", state=state)
    run = client.run(run_id, EchoReport)
    assert await run.status() is expected
    with pytest.raises(error) as caught:
        await run.result()
    assert type(caught.value) is error
    assert (caught.value.error_type, caught.value.message) == ("kind", "why")


def test_what_ends_a_run_is_written_as_it_is_read() -> None:
    duplicate = RunCancelled("an id", "duplicate", "taken", duplicate_of="another id")
    ends: list[BaseException] = [duplicate, RunCancelled("an id", "cancelled", "why"), asyncio.CancelledError()]
    read = [wire.read_result(wire.dumps({"s": False, "r": end})) for end in ends]
    assert [(end.state, end.error_type, end.message, end.duplicate_of) for end in read] == [
        (RunState.CANCELLED, "duplicate", "taken", "another id"),
        (RunState.CANCELLED, "cancelled", "why", None),
        (RunState.CANCELLED, "cancelled", "the run was cancelled", None),
    ]


def test_the_client_without_a_loop_cancels_and_follows(redis_url: str, hands: Hands) -> None:
    with SyncClient(redis_url) as client:
        first, second = client.enqueue(Echo()), client.enqueue(Echo())
        hands.fail(second.id, type="duplicate", message="taken", state="cancelled", duplicate_of=first.id)
        assert (second.status(), second.followed_id) == (RunState.WAITING, first.id)
        assert first.cancel() is True
        assert client.run(uuid7(), EchoReport, born_in_ledger=True).status() is RunState.WAITING
        hands.fail(first.id, type="cancelled", message="as asked", state="cancelled")
        with pytest.raises(RunCancelled, match="as asked"):
            second.result()
