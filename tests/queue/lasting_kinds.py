"""Kinds that last until a file is there: a plugin for tests (`HOLDFAST_PLUGINS=tests.queue.lasting_kinds`)."""

import asyncio
import time
from pathlib import Path
from typing import ClassVar

from holdfast import JobReport, JobRequest
from jobs.context import RunContext
from jobs.registry import Job

LOOK_S = 0.02
SETTLE_S = 0.3
"""What the worker itself writes about a run's start is over by then: on SQLite a loop that is blocked in the middle of
a write holds up the heartbeat, too."""
BLOCKS_SUFFIX = ".blocks"
"""Of the file that is there once the event loop is blocked."""


class Lasting(JobRequest[JobReport]):
    """Ends when a file is there, and does not care about being asked to stop."""

    kind: ClassVar[str] = "lasting"
    report_type: ClassVar[type[JobReport]] = JobReport

    gate: str


class Stubborn(Lasting):
    """The same, and cannot be cancelled."""

    kind: ClassVar[str] = "stubborn"


class Blocking(Lasting):
    """The same, and blocks the event loop meanwhile; a file beside the gate tells from when on."""

    kind: ClassVar[str] = "blocking"


class BlockingUntilAsked(Lasting):
    """Blocks the event loop, and stops when it is asked to."""

    kind: ClassVar[str] = "blocking_until_asked"


async def last(_context: RunContext, request: Lasting) -> JobReport:
    while not Path(request.gate).exists():  # noqa: ASYNC110, ASYNC240 - another process makes it
        await asyncio.sleep(LOOK_S)
    return JobReport()


async def last_stubbornly(context: RunContext, request: Lasting) -> JobReport:
    while True:
        try:
            return await last(context, request)
        except asyncio.CancelledError:
            continue


async def block(_context: RunContext, request: Lasting) -> JobReport:
    await asyncio.sleep(SETTLE_S)
    Path(request.gate + BLOCKS_SUFFIX).touch()  # noqa: ASYNC240
    while not Path(request.gate).exists():  # noqa: ASYNC240
        time.sleep(LOOK_S)  # noqa: ASYNC251 - that is the fault
    return JobReport()


async def block_until_asked(context: RunContext, request: Lasting) -> JobReport:
    while not Path(request.gate).exists():  # noqa: ASYNC240
        context.stop_if_asked()
        time.sleep(LOOK_S)  # noqa: ASYNC251
    return JobReport()


JOBS = (
    Job(Lasting, last, timeout_s=600),
    Job(Stubborn, last_stubbornly, timeout_s=600),
    Job(Blocking, block, timeout_s=600),
    Job(BlockingUntilAsked, block_until_asked, timeout_s=600),
)
