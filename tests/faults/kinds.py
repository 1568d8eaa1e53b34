"""The kinds of the trials: a plugin like any other (`HOLDFAST_PLUGINS=tests.faults.kinds`).

Each leaves its effects in `tests.faults.effects`, through `context.batch()`, so that they can be counted.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import insert

from holdfast import JobReport, JobRequest
from jobs.context import Batch, RunContext
from jobs.outcomes import JobFailed
from jobs.registry import Job
from jobs.retry_policy import RetryPolicy
from tests.faults.effects import effects

LOOK_S = 0.02
TIMEOUT_S = 600.0


class Done(JobReport):
    """How many steps have taken effect."""

    steps: int


class TrialWrite(JobRequest[Done]):
    """Write a row a step, each step in a batch of its own."""

    kind: ClassVar[str] = "trial_write"
    report_type: ClassVar[type[JobReport]] = Done

    steps: int = 1
    pause_s: float = 0.0
    """Before each batch, in seconds."""
    hold_s: float = 0.0
    """In each batch, after its row is written: the run's row is locked meanwhile."""
    slow_starts: int | None = None
    """The two above are for so many starts only; None: for all of them."""
    gate: str = ""
    """A file without which it does not begin; empty: it begins at once."""
    begun: str = ""
    """A folder in which a file named by the run appears when it has begun and will not ask again whether to stop before
    its next step; empty: nowhere."""
    note: str | dict[str, Any] | list[Any] | float | None = None
    """Anything; it only has to be stored."""


class TrialOnce(TrialWrite):
    """The same with a single try."""

    kind: ClassVar[str] = "trial_once"


class TrialBlock(JobRequest[Done]):
    """Block the event loop, then write a row."""

    kind: ClassVar[str] = "trial_block"
    report_type: ClassVar[type[JobReport]] = Done

    seconds: float


class TrialPoison(JobRequest[Done]):
    """Kill its own process in the middle of a batch, each time."""

    kind: ClassVar[str] = "trial_poison"
    report_type: ClassVar[type[JobReport]] = Done

    after_s: float = 0.0


class TrialFail(JobRequest[Done]):
    """Fail inside its only batch, after the row is written."""

    kind: ClassVar[str] = "trial_fail"
    report_type: ClassVar[type[JobReport]] = Done

    times: int | None = None
    """So many attempts fail in a way that is tried again, then it succeeds; None: the first failure is final."""


class TrialCopy(JobRequest[Done]):
    """Write a row by PostgreSQL's COPY, and take so long for it."""

    kind: ClassVar[str] = "trial_copy"
    report_type: ClassVar[type[JobReport]] = Done

    seconds: float
    """At the first start; later ones are quick."""


class Said(JobReport):
    """Whatever it was told to say."""

    text: str


class TrialSay(JobRequest[Said]):
    """Report a character."""

    kind: ClassVar[str] = "trial_say"
    report_type: ClassVar[type[JobReport]] = Said

    code_point: int


async def write(context: RunContext, request: TrialWrite) -> Done:
    """Perform `TrialWrite`."""
    while request.gate and not Path(request.gate).exists():  # noqa: ASYNC240 - a look at a local folder
        context.stop_if_asked()
        await asyncio.sleep(LOOK_S)
    is_slow = request.slow_starts is None or context.fence <= request.slow_starts
    done = (await context.checkpoint()).cursor.get("step", 0)
    while done < request.steps:
        context.stop_if_asked()
        if request.begun:
            Path(request.begun, str(context.run_id)).touch()  # noqa: ASYNC240
        await asyncio.sleep(request.pause_s if is_slow else 0)
        # Which step is next is remembered here, as jobs do that read a file: only the fence tells that it is too late.
        async with context.batch() as batch:
            done = await _write_step(context, batch, done + 1)
            await asyncio.sleep(request.hold_s if is_slow else 0)
    return Done(steps=done)


async def block(context: RunContext, request: TrialBlock) -> Done:
    """Perform `TrialBlock`."""
    if await _is_done(context):
        return Done(steps=1)
    time.sleep(request.seconds)  # noqa: ASYNC251 - that is the fault
    async with context.batch() as batch:
        return Done(steps=await _write_step(context, batch))


async def kill_itself(context: RunContext, request: TrialPoison) -> Done:
    """Perform `TrialPoison`."""
    await asyncio.sleep(request.after_s)
    async with context.batch() as batch:
        done = await _write_step(context, batch)
        os.kill(os.getpid(), signal.SIGKILL)
    return Done(steps=done)


async def fail(context: RunContext, request: TrialFail) -> Done:
    """Perform `TrialFail`."""
    if await _is_done(context):
        return Done(steps=1)
    async with context.batch() as batch:
        done = await _write_step(context, batch)
        if request.times is None:
            raise JobFailed("trial", "it fails each time")
        if context.attempt <= request.times:
            raise ConnectionError("it fails a few times")
    return Done(steps=done)


async def copy(context: RunContext, request: TrialCopy) -> Done:
    """Perform `TrialCopy`."""

    async def slowly() -> AsyncIterator[tuple[UUID, int, int]]:
        await asyncio.sleep(request.seconds if context.fence == 1 else 0)
        yield context.run_id, 1, context.fence

    if await _is_done(context):
        return Done(steps=1)
    async with context.batch() as batch:
        connection = await (await batch.session.connection()).get_raw_connection()
        driver: Any = connection.driver_connection
        columns = ["run_id", "step", "fence"]
        await driver.copy_records_to_table(effects.name, records=slowly(), columns=columns)
        batch.cursor = {"step": 1}
    return Done(steps=1)


async def say(context: RunContext, request: TrialSay) -> Said:
    """Perform `TrialSay`."""
    del context
    return Said(text=chr(request.code_point))


async def _is_done(context: RunContext) -> bool:
    return bool((await context.checkpoint()).cursor)


async def _write_step(context: RunContext, batch: Batch, step: int = 1) -> int:
    await batch.session.execute(insert(effects).values(run_id=context.run_id, step=step, fence=context.fence))
    batch.cursor = {"step": step}
    return step


SOON = RetryPolicy(first_s=0.2, slowest_s=1.0)
ONE_TRY = RetryPolicy(max_attempts=1)

JOBS = (
    Job(TrialWrite, write, timeout_s=TIMEOUT_S, retries=RetryPolicy(max_attempts=100, first_s=0.2, slowest_s=1.0)),
    Job(TrialOnce, write, timeout_s=TIMEOUT_S, retries=ONE_TRY),
    Job(TrialBlock, block, timeout_s=TIMEOUT_S, retries=SOON),
    Job(TrialPoison, kill_itself, timeout_s=TIMEOUT_S, retries=SOON),
    Job(TrialFail, fail, timeout_s=TIMEOUT_S, retries=SOON),
    Job(TrialSay, say, timeout_s=TIMEOUT_S, retries=SOON),
    Job(TrialCopy, copy, timeout_s=TIMEOUT_S, retries=SOON),
)
