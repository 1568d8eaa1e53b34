"""Together with stock arq: its workers on the same queue, its producers, its handles; and what arq promises."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.jobs import Job, JobStatus, SerializationError

from holdfast import wire
from tests.queue.engine.room import Room, ids


@pytest.fixture
async def stock(room: Room) -> AsyncIterator[ArqRedis]:
    """Stock arq's own client, with JSON."""
    settings = RedisSettings.from_dsn(room.url)
    pool = await create_pool(settings, job_serializer=wire.dumps, job_deserializer=wire.loads)
    yield pool
    await pool.aclose(close_connection_pool=True)


async def abort(job: Job) -> None:
    """Aborts by stock arq, which cannot raise what JSON does not carry."""
    with pytest.raises(SerializationError, match="cancelled"):
        await job.abort(timeout=30, poll_delay=0.05)


def test_stock_workers_and_ours_run_each_job_once(room: Room) -> None:
    quick, slow = ids("quick", 200), ids("slow", 60)
    workers = [room.start(stock=number % 2 == 0, max_jobs=10, poll_delay_s=0.05) for number in range(4)]
    room.enqueue_all("gated", slow[:30])
    room.wait_for("start", slow[:30])
    room.enqueue_all("quick", quick)
    room.enqueue_all("retrying", retried := ids("retried", 40), 2)
    room.wait_for_results([*quick[:100], *retried[:20]])
    room.enqueue_all("gated", slow[30:])
    room.open_gate()
    room.wait_for_results([*quick, *slow, *retried])

    once = dict.fromkeys([*quick, *slow], 1)
    assert room.count("start") == once | dict.fromkeys(retried, 3)
    assert room.count("end") == once | dict.fromkeys(retried, 1)
    assert {mark.pid for mark in room.marks()} == {worker.pid for worker in workers}
    assert all(worker.alive for worker in workers)


def test_a_job_that_a_stock_worker_runs_is_left_to_it(room: Room) -> None:
    jobs = ids("job", 5)
    stock = room.start(stock=True, max_jobs=5)
    room.enqueue_all("gated", jobs)
    room.wait_for("start", jobs)
    ours = room.start(lease_s=0.5, longest_idle_s=0.5)  # looks again every second, and reaps several times in between

    seen = set()

    def score_moved_twice() -> bool:
        seen.add(room.redis.zscore(wire.DEFAULT_QUEUE, jobs[0]))
        return len(seen) > 2

    room.wait(score_moved_twice, "several looks at what the stock worker runs")
    room.open_gate()
    results = room.wait_for_results(jobs)

    assert {result["r"] for result in results.values()} == {stock.pid}
    assert room.count("start") == dict.fromkeys(jobs, 1)
    room.wait(lambda: room.left_behind() == [], "an empty queue")
    assert ours.alive


def test_a_job_that_we_run_is_left_to_us(room: Room) -> None:
    jobs = ids("job", 5)
    ours = room.start(max_jobs=5)
    room.enqueue_all("gated", jobs)
    room.wait_for("start", jobs)
    stock = room.start(stock=True, poll_delay_s=0.05)
    room.enqueue_all("quick", others := ids("other", 5))
    room.wait_for_results(others)
    room.open_gate()
    results = room.wait_for_results(jobs)

    assert {result["r"] for result in results.values()} == {ours.pid}
    assert room.count("start") == dict.fromkeys([*jobs, *others], 1)
    assert stock.alive


async def test_handles_of_stock_arq_follow_a_job(room: Room, stock: ArqRedis) -> None:
    worker = room.start(max_jobs=1)
    running = await stock.enqueue_job("gated", _job_id="running")
    assert running
    room.wait_for("start", ["running"])
    waiting = await stock.enqueue_job("quick", _job_id="waiting")
    deferred = await stock.enqueue_job("quick", _job_id="deferred", _defer_by=3600)
    assert waiting
    assert deferred

    assert await running.status() is JobStatus.in_progress
    assert await waiting.status() is JobStatus.queued
    assert await deferred.status() is JobStatus.deferred
    assert await stock.enqueue_job("quick", _job_id="running") is None
    room.open_gate()
    assert await running.result(timeout=30, poll_delay=0.05) == worker.pid
    assert await waiting.result(timeout=30, poll_delay=0.05) == worker.pid
    assert await running.status() is JobStatus.complete


async def test_stock_abort_ends_running_waiting_and_deferred_jobs(room: Room, stock: ArqRedis) -> None:
    worker = room.start(max_jobs=2)
    jobs = {name: await stock.enqueue_job("gated", _job_id=name) for name in ("running", "other")}
    room.wait_for("start", ["running", "other"])
    jobs["waiting"] = await stock.enqueue_job("gated", _job_id="waiting")
    jobs["deferred"] = await stock.enqueue_job("gated", _job_id="deferred", _defer_by=3600)

    waiting = [asyncio.create_task(abort(job)) for name in ("waiting", "deferred") if (job := jobs[name])]
    while await stock.zcard("arq:abort") < len(waiting):  # noqa: ASYNC110 - each turn is a round trip
        await asyncio.sleep(0.01)
    if job := jobs["running"]:
        await abort(job)
    await asyncio.gather(*waiting)
    room.open_gate()
    results = room.wait_for_results(list(jobs))

    assert results.pop("other")["s"]
    assert {result["r"]["error"]["state"] for result in results.values()} == {"cancelled"}
    assert room.count("end") == {"other": 1}
    assert room.count("start") == {"running": 1, "other": 1}
    assert worker.alive
    room.wait(lambda: room.left_behind() == [], "an empty queue")


def test_jobs_start_when_they_are_due_and_not_before(room: Room) -> None:
    room.start(max_jobs=20, longest_idle_s=60)
    due_at = {}
    for number in range(10):
        due_at[room.enqueue("quick", job_id=f"job-{number}", defer_s=0.2 + number * 0.1)] = (
            time.time() + 0.2 + number * 0.1
        )
    room.wait_for_results(list(due_at))

    for mark in room.marks():
        assert mark.at >= due_at[mark.job_id] - 0.002, "it began before it was due"
    assert [mark.job_id for mark in room.marks() if mark.event == "start"] == list(due_at)


def test_a_retry_comes_after_its_delay_and_counts(room: Room) -> None:
    room.start(longest_idle_s=60)
    room.enqueue("retrying", 2, "", 0.4, job_id="job")
    room.wait_for_results(["job"])
    starts = [mark for mark in room.marks() if mark.event == "start"]

    assert [mark.job_try for mark in starts] == [1, 2, 3]
    assert all(later.at - sooner.at >= 0.4 for sooner, later in pairwise(starts))


def test_queues_are_served_in_their_order(room: Room) -> None:
    low, high, middle = ids("low", 5), ids("high", 5), ids("middle", 5)
    room.enqueue_all("quick", low, queue="low")
    room.enqueue_all("quick", middle, queue="middle")
    room.enqueue_all("quick", high)
    room.start(max_jobs=1, further_queues=["middle", "low"])
    room.wait_for_results([*low, *middle, *high])

    assert [mark.job_id for mark in room.marks() if mark.event == "end"] == [*high, *middle, *low]
    room.enqueue("quick", job_id="later", queue="low")
    room.wait_for_results(["later"])
    room.wait(lambda: room.left_behind() == room.left_behind("low") == room.left_behind("middle") == [], "empty queues")


def test_runs_of_further_queues_survive_a_crash(room: Room) -> None:
    jobs = ids("job", 5)
    dies = room.start(further_queues=["low"])
    room.enqueue_all("gated", jobs, queue="low")
    room.wait_for("start", jobs)
    dies.kill()
    lives = room.start(queue="low")
    room.wait_for("start", jobs, lives.pid)
    room.open_gate()

    assert {result["r"] for result in room.wait_for_results(jobs).values()} == {lives.pid}


def test_nothing_is_claimed_from_a_paused_queue_and_nobody_spins(room: Room) -> None:
    room.enqueue_all("quick", ids("paused", 5), queue="low")
    room.start(further_queues=["low"], paused_queues=["low"])
    room.enqueue("quick", job_id="job")
    room.wait_for_results(["job"])

    before = room.redis.info("stats")["total_commands_processed"]
    seen_at = time.monotonic()
    room.wait(lambda: time.monotonic() > seen_at + 1.0, "a second")
    commands = room.redis.info("stats")["total_commands_processed"] - before

    assert commands < 100
    assert set(room.count("start")) == {"job"}
