"""A kind without a ledger that does as it is told: a plugin for tests (`HOLDFAST_PLUGINS=tests.queue.light_kinds`)."""

import asyncio
from pathlib import Path
from typing import ClassVar, Literal

from holdfast import JobReport, JobRequest
from jobs.context import RunContext
from jobs.outcomes import JobCancelled, JobFailed, JobSnoozed
from jobs.registry import Job
from jobs.retry_policy import RetryPolicy
from tests.odd_errors import Panic

LOOK_S = 0.02
TIMEOUT_S = 1.0
ATTEMPTS = 3


class Starts(JobReport):
    """How often it was started, and which attempt it was told that it is."""

    starts: int
    attempt: int


class LightDeed(JobRequest[Starts]):
    """Marks its start in a file, then does as it is told."""

    kind: ClassVar[str] = "light_deed"
    report_type: ClassVar[type[JobReport]] = Starts
    ledger: ClassVar[bool] = False

    marks: str
    """A file with a line for each start: the id that the context tells."""
    deed: Literal[
        "succeed", "fail", "break", "panic", "exit", "be refused", "snooze", "cancel itself", "last", "hang"
    ] = "succeed"
    times: int = 1_000_000
    """So many starts do it, then it succeeds."""


async def do(context: RunContext, request: LightDeed) -> Starts:
    """Perform `LightDeed`."""
    marks = Path(request.marks)
    with marks.open("a") as file:  # noqa: ASYNC230 - a line
        file.write(f"{context.run_id}\n")
    starts = len(marks.read_text().splitlines())  # noqa: ASYNC240
    if starts <= request.times:
        await _misbehave(context, request.deed)
    return Starts(starts=starts, attempt=context.attempt)


ERRORS: dict[str, BaseException] = {
    "fail": JobFailed("no_luck", "it fails each time"),
    "break": ZeroDivisionError("a bug"),
    "panic": Panic("rust panicked"),
    "exit": SystemExit("no such option"),
    "be refused": ConnectionError("nobody listens"),
    "snooze": JobSnoozed(0.05),
    "cancel itself": JobCancelled("not wanted any more"),
}


async def _misbehave(context: RunContext, deed: str) -> None:
    match deed:
        case "last":
            while True:
                context.stop_if_asked()
                await asyncio.sleep(LOOK_S)
        case "hang":
            await asyncio.sleep(600)
        case "succeed":
            pass
        case _:
            raise ERRORS[deed]


JOBS = (
    Job(
        LightDeed,
        do,
        timeout_s=TIMEOUT_S,
        retries=RetryPolicy(max_attempts=ATTEMPTS, first_s=0.05, by_error={TimeoutError: None}),
    ),
)
