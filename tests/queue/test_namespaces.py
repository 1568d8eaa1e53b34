"""Two environments on one Redis, each with its namespace and its database: neither touches the other's runs."""

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from arq.connections import RedisSettings, create_pool

from holdfast import Client, ImportReport, ImportTasks, Run, RunCancelled, outbox, wire
from samples.make_tasks import FIELD_MAP
from tests.processes import WorkerProcess
from tests.queue.workplace import PATIENCE_S, Ledger, Workplace
from tests.servers import wait_until

WEEK_MS = 8 * 24 * 3600 * 1000
SHORT = {"LEASE_S": "1", "HEARTBEAT_TIMEOUT_S": "1"}


class Environment:
    """One of them."""

    def __init__(self, name: str, redis_url: str, folder: Path) -> None:
        self.name = name
        self.place = Workplace(redis_url, folder / name)
        self._files = 0
        self.queue = f"{name}:{wire.DEFAULT_QUEUE}"

    def worker(self, *arguments: str, **more: str) -> WorkerProcess:
        return self.place.worker(*arguments, HOLDFAST_NAMESPACE=self.name, **SHORT, **more)

    def client(self) -> Client:
        return Client(self.place.redis_url, namespace=self.name)

    def import_request(self, rows: int = 20, batch_rows: int = 1000) -> ImportTasks:
        self._files += 1
        path, _ = self.place.write_tasks(f"{self._files}.csv", rows)
        return ImportTasks(source=str(path), mapping=FIELD_MAP, batch_rows=batch_rows)

    async def enqueue_in_ledger(self, ledger: Ledger, *, at: datetime | None = None) -> UUID:
        async with ledger.manager.session() as session:
            return await outbox.enqueue(session, self.import_request(), namespace=self.name, at=at)


@pytest.fixture
def environments(redis_url: str, tmp_path: Path) -> tuple[Environment, Environment]:
    return Environment("staging", redis_url, tmp_path), Environment("prod-2_b", redis_url, tmp_path)


def until(condition: Callable[[], bool]) -> None:
    assert wait_until(condition, PATIENCE_S)


async def states(ledger: Ledger) -> dict[str, str]:
    return {run.job_id: run.state for run in await ledger.runs()}


async def test_each_worker_runs_its_own(environments: tuple[Environment, Environment]) -> None:
    ours, theirs = environments
    async with contextlib.AsyncExitStack() as stack:
        our_ledger, their_ledger = [await stack.enter_async_context(each.place.ledger()) for each in environments]
        our_client, their_client = [await stack.enter_async_context(each.client()) for each in environments]
        our_run = await our_client.enqueue(ours.import_request())
        their_run = await their_client.enqueue(theirs.import_request())
        our_other = await ours.enqueue_in_ledger(our_ledger)
        their_other = await theirs.enqueue_in_ledger(their_ledger)
        with ours.worker("--burst") as worker:
            assert worker.wait(PATIENCE_S) == 0
        assert await states(our_ledger) == dict.fromkeys([our_run.id, str(our_other)], "succeeded")
        assert await states(their_ledger) == {str(their_other): "waiting"}
        assert await their_run.status() == "waiting"
        with theirs.worker("--burst") as worker:
            assert worker.wait(PATIENCE_S) == 0
        assert await states(their_ledger) == dict.fromkeys([their_run.id, str(their_other)], "succeeded")
        assert len(await our_ledger.runs()) == 2
        assert {run.queue for run in await their_ledger.runs()} == {theirs.queue}
        report = await their_client.run(their_other, ImportReport).result(timeout_s=1)
        assert report.rows_read == 20


async def test_one_s_cancellations_are_not_the_other_s(environments: tuple[Environment, Environment]) -> None:
    ours, theirs = environments
    async with ours.client() as our_client, theirs.client() as their_client, theirs.place.ledger() as their_ledger:
        cancelled = [await their_client.enqueue(theirs.import_request()) for _ in range(2)]
        with ours.place.redis() as redis, ours.worker():
            await (await our_client.enqueue(ours.import_request())).result(timeout_s=PATIENCE_S)
            for run in cancelled:
                assert await run.cancel()
            now_ms = time.time_ns() // 1_000_000
            redis.zadd(wire.ABORT_KEY, {cancelled[0].id: now_ms - WEEK_MS, "nobody's": now_ms - WEEK_MS})
            until(lambda: redis.zscore(wire.ABORT_KEY, "nobody's") is None)  # our worker has swept the set
            assert {run.id.encode() for run in cancelled} == set(redis.zrange(wire.ABORT_KEY, 0, -1))
            with theirs.worker():
                for run in cancelled:
                    await assert_cancelled(run)
                running = await their_client.enqueue(theirs.import_request(3000, batch_rows=10))
                await their_ledger.until(UUID(running.id), "running", rows_read=10)
                assert await running.cancel()
                await assert_cancelled(running)


async def assert_cancelled(run: Run[ImportReport]) -> None:
    with pytest.raises(RunCancelled):
        await run.result(timeout_s=PATIENCE_S)


async def test_one_does_not_take_up_what_the_other_s_dead_worker_left(
    environments: tuple[Environment, Environment],
) -> None:
    ours, theirs = environments
    soon = datetime.now(UTC) + timedelta(minutes=1)
    async with ours.place.ledger() as our_ledger, theirs.place.ledger() as their_ledger, theirs.client() as client:
        run = await client.enqueue(theirs.import_request(3000, batch_rows=10))
        with theirs.worker() as dies:
            await their_ledger.until(UUID(run.id), "running", rows_read=10)
            dies.kill()
        our_later = await ours.enqueue_in_ledger(our_ledger, at=soon)
        their_later = await theirs.enqueue_in_ledger(their_ledger, at=soon)
        with ours.place.redis() as redis, ours.worker() as worker:
            worker.wait_for("worker started")
            until_ms = redis.zscore(f"{theirs.queue}:leases", run.id)
            until(lambda: is_dispatched(redis, ours.queue, our_later))
            until(lambda: is_past(redis, until_ms + 3000))  # our worker has looked for dead ones twice
            assert redis.zscore(f"{theirs.queue}:leases", run.id) == until_ms
            redis.flushall()
            until(lambda: is_dispatched(redis, ours.queue, our_later))
            assert redis.zscore(theirs.queue, str(their_later)) is None
            assert set(redis.keys("*")) & {theirs.queue.encode(), b"arq:queue"} == set()
            with theirs.worker():
                await their_ledger.until(UUID(run.id), "succeeded")
                until(lambda: is_dispatched(redis, theirs.queue, their_later))
        assert await states(our_ledger) == {str(our_later): "waiting"}


def is_dispatched(redis: Any, queue: str, run_id: UUID) -> bool:
    return redis.zscore(queue, str(run_id)) is not None


def is_past(redis: Any, instant_ms: float) -> bool:
    seconds, _ = redis.time()
    return bool(seconds * 1000 > instant_ms)


async def test_stock_producers_and_handles_name_the_queue(environments: tuple[Environment, Environment]) -> None:
    ours, _ = environments
    pool = await create_pool(
        RedisSettings.from_dsn(ours.place.redis_url), job_serializer=wire.dumps, job_deserializer=wire.loads
    )
    request = ours.import_request()
    job = await pool.enqueue_job(request.kind, request.payload(), _queue_name=ours.queue)
    assert job is not None
    with ours.worker("--burst"):
        assert (await job.result(timeout=PATIENCE_S, poll_delay=0.05))["rows_read"] == 20
    await pool.aclose(close_connection_pool=True)
