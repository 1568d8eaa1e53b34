"""One attempt with its ledger: whatever a job does, and whenever it is cancelled, the ledger knows how it ended."""

import asyncio
import errno
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import pytest
from arq.worker import Retry

from db.repositories.job_run import BornRun
from holdfast import JobReport, JobRequest
from holdfast.errors import RunFailed
from holdfast.ids import uuid7
from holdfast.states import RunState
from holdfast.wire import MAX_REPORT_BYTES
from jobs.context import RunContext
from jobs.outcomes import JobFailed, JobSnoozed, RunInterrupted
from jobs.registry import Job
from jobs.retry_policy import RetryPolicy
from tests.databases.runs import QUEUE, admitted, attempts_of, born_again, run_of, vitals
from tests.odd_errors import Panic, UnspeakableError
from worker import ledger
from worker import run as run_module
from worker.ledger import Admitted
from worker.logs import get_logger
from worker.queue.slots import Slot, Slots
from worker.recording import record_finished
from worker.retries import Outcome
from worker.run import run_attempt
from worker.runtime import Runtime
from worker.settings import Settings

pytestmark = pytest.mark.usefixtures("manager")


class Odd(JobRequest[JobReport]):
    """A kind of these tests."""

    kind: ClassVar[str] = "odd"
    report_type: ClassVar[type[JobReport]] = JobReport


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    return Runtime(Settings(_env_file=None, holdfast_data_dir=tmp_path), owns_queue=False)


def job(perform: Callable[[RunContext, Any], Awaitable[Any]]) -> Job:
    return Job(Odd, perform, timeout_s=60.0, retries=RetryPolicy(max_attempts=1))


def born() -> BornRun:
    return BornRun("odd", QUEUE, str(uuid7()), datetime.now(UTC).replace(microsecond=0), {})


async def nothing(context: RunContext, request: Odd) -> JobReport:
    return JobReport()


async def without_a_report(context: RunContext, request: Odd) -> Any:
    return None


async def cancelled_by_itself(context: RunContext, request: Odd) -> JobReport:
    raise asyncio.CancelledError


async def panicking(context: RunContext, request: Odd) -> JobReport:
    raise Panic("rust panicked")


async def exiting(context: RunContext, request: Odd) -> JobReport:
    sys.exit("as a command line does")


@pytest.mark.parametrize("perform", [without_a_report, cancelled_by_itself, panicking, exiting])
async def test_an_odd_end_is_a_failure(runtime: Runtime, perform: Callable[..., Awaitable[Any]]) -> None:
    run = born()
    with pytest.raises(RunFailed):
        await run_attempt(runtime, job(perform), run)
    (attempt,) = await attempts_of(UUID(run.job_id))
    assert (attempt.outcome, (await run_of(attempt.run_id)).state) == ("failed", "failed")
    assert runtime.active == set()


def raising(error: BaseException) -> Callable[..., Coroutine[Any, Any, JobReport]]:
    async def perform(context: RunContext, request: Odd) -> JobReport:
        raise error

    return perform


@pytest.mark.parametrize(
    "error",
    [
        UnspeakableError(),
        JobFailed("x", "a\0b"),
        JobFailed("x", "name \udcff"),
        JobFailed(RunState.FAILED, "of an enum"),
    ],
    ids=lambda error: repr(error.args),
)
async def test_an_end_that_is_hard_to_tell_is_recorded_at_once(runtime: Runtime, error: Exception) -> None:
    run = born()
    with pytest.raises(RunFailed) as told:
        await run_attempt(runtime, job(raising(error)), run)
    row = await run_of(UUID(run.job_id))
    assert (row.state, row.attempts) == ("failed", 1)
    assert row.error == {"type": told.value.error_type, "message": told.value.message}


@pytest.mark.parametrize(
    ("error", "reason", "attempts"), [(RunInterrupted(), "interrupted", 0), (ConnectionResetError(), "retry", 1)]
)
async def test_an_error_in_a_task_group_means_the_same(
    runtime: Runtime, error: Exception, reason: str, attempts: int
) -> None:
    async def perform(context: RunContext, request: Odd) -> JobReport:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(60))
            tasks.create_task(raising(error)(context, request))
        return JobReport()

    run = born()
    with pytest.raises(Retry):
        await run_attempt(runtime, replace(job(perform), retries=RetryPolicy()), run)
    row = await run_of(UUID(run.job_id))
    assert (row.state, row.reason, row.attempts) == ("waiting", reason, attempts)


async def test_a_snooze_beyond_the_end_of_time_is_a_long_one(runtime: Runtime) -> None:
    run = born()
    with pytest.raises(Retry):
        await run_attempt(runtime, job(raising(JobSnoozed(1e18))), run)
    row = await run_of(UUID(run.job_id))
    assert (row.state, row.reason) == ("waiting", "snoozed")
    assert row.due_at.year > datetime.now(UTC).year + 5


class Long(JobReport):
    text: str


async def test_a_report_that_is_too_large_fails_its_run(runtime: Runtime) -> None:
    async def perform(context: RunContext, request: Odd) -> JobReport:
        return Long(text="x" * 20_000_000)

    run = born()
    with pytest.raises(RunFailed, match="the report has 20000011 bytes as JSON, the limit is 4194304: ") as told:
        await run_attempt(runtime, job(perform), run)
    assert told.value.error_type == "report_too_large"
    assert (await run_of(UUID(run.job_id))).state == "failed"


async def test_the_largest_report_is_stored(runtime: Runtime) -> None:
    async def perform(context: RunContext, request: Odd) -> JobReport:
        return Long(text='"' * ((MAX_REPORT_BYTES - 11) // 2))  # which MySQL's driver escapes once more

    assert await run_attempt(runtime, job(perform), born()) is not None


@pytest.mark.parametrize(
    "outcome",
    [Outcome("failed", error={"type": uuid7()}), Outcome("snoozed", delay_s=1e18)],
    ids=lambda outcome: outcome.name,
)
async def test_an_end_that_the_ledger_refuses_for_good_is_a_plain_failure(runtime: Runtime, outcome: Outcome) -> None:
    given = await admitted("ada")
    recorded = await record_finished(runtime, given, outcome, get_logger())
    row = await run_of(given.run_id)
    assert (row.state, row.attempts, row.error) == ("failed", 1, recorded.error)
    assert row.error["type"] == "unstorable"
    assert row.error["message"].startswith("its end cannot be stored: ")


async def test_a_log_that_cannot_be_written_does_not_keep_the_run(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk:
        def bind(self, **_fields: object) -> "FullDisk":
            return self

        def info(self, event: str, **_fields: object) -> None:
            raise OSError(errno.ENOSPC, event)

    run = born()
    monkeypatch.setattr(run_module, "get_logger", lambda **_fields: FullDisk())
    with pytest.raises(OSError, match="run started"):
        await run_attempt(runtime, job(nothing), run)
    assert runtime.active == set()


async def test_a_clean_up_that_fails_does_not_undo_a_success(runtime: Runtime) -> None:
    def fail(settings: Any, request: Odd) -> None:
        raise LookupError(f"{settings} {request}")

    run = born()
    assert await run_attempt(runtime, replace(job(nothing), clean_up=fail), run) == {}
    assert (await run_of(UUID(run.job_id))).state == "succeeded"


async def test_a_cancellation_before_the_start_waits_for_the_ledger(runtime: Runtime) -> None:
    run = born()
    attempt = asyncio.create_task(run_attempt(runtime, job(nothing), run))
    await asyncio.sleep(0)  # its admission is on the way
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    row = await run_of(UUID(run.job_id))
    assert (row.state, row.reason, row.fence, row.attempts, row.crashes) == ("waiting", "interrupted", 1, 0, 0)
    assert runtime.active == set()


def ahead() -> tuple[Slots, Slot, Slot]:
    """One slot, which the first has, and a second entry that was started ahead."""
    slots = Slots(1, {}, may_be_released_early=True, longest_wait_s=60.0)
    return slots, slots.begin(QUEUE, ahead=False), slots.begin(QUEUE, ahead=True)


async def test_a_run_that_was_started_ahead_is_performed_when_there_is_a_slot(runtime: Runtime) -> None:
    slots, first, second = ahead()
    run, performed = born(), asyncio.Event()

    async def perform(context: RunContext, request: Odd) -> JobReport:
        performed.set()
        return JobReport()

    attempt = asyncio.create_task(run_attempt(runtime, job(perform), run, slot=second))
    await until_admitted(runtime)
    assert not performed.is_set()
    slots.end(first)
    assert await attempt == {}
    assert performed.is_set()
    assert (await run_of(UUID(run.job_id))).state == "succeeded"
    assert (slots.held, slots.ahead, runtime.active) == (0, 0, set())


@pytest.mark.parametrize("kept_by", ["another run", "a pause"])
async def test_a_run_that_gets_no_slot_goes_back_uncharged(runtime: Runtime, kept_by: str) -> None:
    slots, first, second = ahead()
    run = born()
    attempt = asyncio.create_task(run_attempt(runtime, job(nothing), run, slot=second))
    await until_admitted(runtime)
    if kept_by == "a pause":
        slots.refuse()
    with pytest.raises(Retry):
        await attempt
    slots.end(second)
    row = await run_of(UUID(run.job_id))
    assert (row.state, row.reason, row.fence, row.attempts, row.crashes) == ("waiting", "interrupted", 1, 0, 0)
    assert (slots.held, slots.ahead, runtime.active) == (1, 0, set())
    slots.end(first)
    assert await run_attempt(runtime, job(nothing), run) == {}


async def test_a_run_that_is_cancelled_while_it_waits_for_a_slot_goes_back(runtime: Runtime) -> None:
    _, _, second = ahead()
    run = born()
    attempt = asyncio.create_task(run_attempt(runtime, job(nothing), run, slot=second))
    await until_admitted(runtime)
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert (await run_of(UUID(run.job_id))).reason == "interrupted"


async def until_admitted(runtime: Runtime) -> None:
    async with asyncio.timeout(10):
        while not runtime.active:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


async def test_an_admission_that_was_not_heard_of_is_no_crash() -> None:
    first = await admitted("ada")
    again = await ledger.admit(await born_again(first.run_id), vitals("ada"), active_here=set())
    assert again == Admitted(first.run_id, 2, 1)
    assert (await run_of(first.run_id)).crashes == 0
    assert [one.outcome for one in await attempts_of(first.run_id)] == ["interrupted"]
