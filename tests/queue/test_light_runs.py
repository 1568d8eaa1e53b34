"""Runs without a ledger, by a worker as a process: each outcome is told in Redis, and the database hears nothing."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.repositories import control
from holdfast import Client, Run, RunCancelled, RunFailed, RunNotFound, RunState, wire
from tests.processes import WorkerProcess
from tests.queue.engine.room import left_behind
from tests.queue.light_kinds import ATTEMPTS, LightDeed, Starts
from tests.queue.workplace import PATIENCE_S, Workplace, log_events
from tests.servers import wait_until
from worker.upkeep import CONTROLS_LOOK_S

KINDS = {"HOLDFAST_PLUGINS": "tests.queue.light_kinds", "LEASE_S": "1"}


@pytest.fixture
def place(redis_url: str, tmp_path: Path) -> Workplace:
    return Workplace(redis_url, tmp_path)


@pytest.fixture
def worker(place: Workplace) -> Iterator[WorkerProcess]:
    with place.started_worker(**KINDS) as started:
        yield started
        assert started.terminate() == 0


def deed(place: Workplace, name: str, *, times: int = 1_000_000) -> LightDeed:
    return LightDeed.model_validate({"marks": str(place.folder / "marks"), "deed": name, "times": times})


def starts(place: Workplace) -> int:
    marks = place.folder / "marks"
    return len(marks.read_text().splitlines()) if marks.exists() else 0


async def report_of(run: Run[Starts]) -> Starts:
    return await run.result(timeout_s=PATIENCE_S)


async def failure_of(run: Run[Starts]) -> RunFailed:
    with pytest.raises(RunFailed) as caught:
        await run.result(timeout_s=PATIENCE_S)
    return caught.value


async def test_it_succeeds_and_only_redis_knows(place: Workplace, worker: WorkerProcess) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        run = await client.enqueue(deed(place, "succeed"))
        assert await report_of(run) == Starts(starts=1, attempt=1)
        assert (place.folder / "marks").read_text().split() == [run.id]
        assert await run.status() is RunState.SUCCEEDED
        assert await ledger.runs() == []
        with place.redis() as redis:
            assert 0 < redis.pttl(wire.RESULT_KEY + run.id) <= 3_600_000
            assert wait_until(lambda: not left_behind(redis), PATIENCE_S), left_behind(redis)
    assert worker.alive


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fail", ("no_luck", "it fails each time")),
        ("break", ("ZeroDivisionError", "a bug")),
        ("panic", ("Panic", "rust panicked")),
        ("exit", ("SystemExit", "no such option")),
        ("hang", ("TimeoutError", "TimeoutError")),
    ],
)
async def test_it_fails_at_once_with_its_reason(place: Workplace, name: str, told: tuple[str, str]) -> None:
    async with Client(place.redis_url) as client:
        run = await client.enqueue(deed(place, name))
        failure = await failure_of(run)
        assert (failure.error_type, failure.message) == told
        assert await run.status() is RunState.FAILED
    assert starts(place) == 1


@pytest.mark.usefixtures("worker")
async def test_a_request_that_does_not_fit_is_refused(place: Workplace) -> None:
    async with Client(place.redis_url) as client:
        wrong = LightDeed.model_construct(marks="", deed="fly")  # type: ignore[arg-type]
        failure = await failure_of(await client.enqueue(wrong))
    assert failure.error_type == "invalid_request"
    assert failure.message.startswith("deed: Input should be 'succeed'")
    assert starts(place) == 0


@pytest.mark.usefixtures("worker")
async def test_what_may_pass_is_tried_again_as_its_kind_says(place: Workplace) -> None:
    async with Client(place.redis_url) as client:
        passing = await client.enqueue(deed(place, "be refused", times=ATTEMPTS - 1))
        assert await report_of(passing) == Starts(starts=ATTEMPTS, attempt=ATTEMPTS)
        failure = await failure_of(await client.enqueue(deed(place, "be refused")))
    assert failure.error_type == "ConnectionError"
    assert failure.message == f"nobody listens; given up after {ATTEMPTS} attempts"
    assert starts(place) == 2 * ATTEMPTS


async def test_a_snoozed_one_comes_back_and_is_charged_nothing(place: Workplace, worker: WorkerProcess) -> None:
    async with Client(place.redis_url) as client:
        run = await client.enqueue(deed(place, "snooze", times=ATTEMPTS + 1))
        assert await report_of(run) == Starts(starts=ATTEMPTS + 2, attempt=1)
    assert "unexpected error" not in worker.text


@pytest.mark.usefixtures("worker")
async def test_one_that_cancels_itself_and_one_that_is_cancelled(place: Workplace) -> None:
    async with Client(place.redis_url) as client:
        own = await failure_of(await client.enqueue(deed(place, "cancel itself")))
        assert (type(own), own.message) == (RunCancelled, "not wanted any more")
        async with place.ledger() as ledger, ledger.manager.session() as session:
            await control.set_paused(session, "kind", LightDeed.kind, paused=True)
        await asyncio.sleep(2 * CONTROLS_LOOK_S)  # until the worker has heard of it
        waiting = await client.enqueue(deed(place, "succeed"))
        assert await waiting.cancel()
        assert type(await failure_of(waiting)) is RunCancelled
        assert await waiting.status() is RunState.CANCELLED
    assert starts(place) == 1


async def test_a_running_one_is_cancelled(place: Workplace) -> None:
    with place.started_worker(**KINDS) as worker:
        async with Client(place.redis_url) as client:
            run = await client.enqueue(deed(place, "hang"))
            assert wait_until(lambda: starts(place) == 1, PATIENCE_S)
            assert await run.cancel()
            assert type(await failure_of(run)) is RunCancelled
        with place.redis() as redis:
            assert wait_until(lambda: not left_behind(redis), PATIENCE_S), left_behind(redis)
        assert worker.terminate() == 0


async def test_a_paused_kind_waits_and_is_charged_nothing(place: Workplace) -> None:
    async with Client(place.redis_url) as client, place.ledger() as ledger:
        async with ledger.manager.session() as session:
            await control.set_paused(session, "kind", LightDeed.kind, paused=True)
        with place.started_worker(**KINDS) as worker:
            run = await client.enqueue(deed(place, "succeed"))
            with place.redis() as redis:  # it was claimed and went back
                due = redis.zscore(wire.DEFAULT_QUEUE, run.id)
                assert wait_until(lambda: redis.zscore(wire.DEFAULT_QUEUE, run.id) > due, PATIENCE_S)
            async with ledger.manager.session() as session:
                await control.set_paused(session, "kind", LightDeed.kind, paused=False)
            assert await report_of(run) == Starts(starts=1, attempt=1)
            assert worker.terminate() == 0


@pytest.mark.parametrize("name", ["last", "hang"], ids=["stops when it is asked to", "is cut short"])
async def test_a_deploy_interrupts_it_and_charges_nothing(place: Workplace, name: str) -> None:
    async with Client(place.redis_url) as client:
        with place.started_worker("first", SHUTDOWN_GRACE_S="0.3", **KINDS) as first:
            run = await client.enqueue(deed(place, name, times=1))
            assert wait_until(lambda: starts(place) == 1, PATIENCE_S)
            assert first.terminate() == 0
        with place.started_worker("second", **KINDS) as second:
            assert await report_of(run) == Starts(starts=2, attempt=1)
            assert second.terminate() == 0


async def test_it_runs_again_when_its_worker_has_died(place: Workplace) -> None:
    async with Client(place.redis_url) as client:
        with place.started_worker("first", **KINDS) as first:
            run = await client.enqueue(deed(place, "hang", times=1))
            assert wait_until(lambda: starts(place) == 1, PATIENCE_S)
            os.kill(first.pid, signal.SIGKILL)
        with place.started_worker("second", **KINDS) as second:
            assert await report_of(run) == Starts(starts=2, attempt=1)
            assert second.terminate() == 0
    assert "ended without a word" not in second.text


async def test_without_kept_results_it_is_done_and_forgotten(place: Workplace) -> None:
    with place.started_worker(**KINDS, KEEP_RESULT_S="0") as worker:
        async with Client(place.redis_url) as client:
            run = await client.enqueue(deed(place, "be refused", times=1))
            with place.redis() as redis:
                assert wait_until(lambda: not left_behind(redis), PATIENCE_S), left_behind(redis)
                assert not redis.exists(wire.RESULT_KEY + run.id)
            with pytest.raises(RunNotFound):
                await run.result(timeout_s=PATIENCE_S)
        assert worker.terminate() == 0
    assert starts(place) == 2
    assert not [event for event in log_events(worker) if event["level"] in {"error", "critical"}]
