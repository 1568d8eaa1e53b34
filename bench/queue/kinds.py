"""The kinds that are measured: a plugin like any other (``HOLDFAST_PLUGINS=bench.queue.kinds``).

Each is there twice: light, and as a ledgered twin that does the same.
"""

import asyncio
from typing import Any, ClassVar

from bench.queue.marks import mark
from holdfast import JobReport, JobRequest
from jobs.context import RunContext
from jobs.registry import Job

TIMEOUT_S = 60.0


class Started(JobReport):
    """When the job started, in Unix seconds."""

    at: float


class Noop(JobRequest[Started]):
    """Do nothing."""

    kind: ClassVar[str] = "noop"
    report_type: ClassVar[type[JobReport]] = Started
    ledger: ClassVar[bool] = False

    x: float


class Stamp(JobRequest[Started]):
    """Remember when the producer enqueued it."""

    kind: ClassVar[str] = "stamp"
    report_type: ClassVar[type[JobReport]] = Started
    ledger: ClassVar[bool] = False

    t0: float


class Nap(JobRequest[Started]):
    """Sleep."""

    kind: ClassVar[str] = "nap"
    report_type: ClassVar[type[JobReport]] = Started
    ledger: ClassVar[bool] = False

    seconds: float


class NoopLedgered(Noop):
    """Do nothing, in the ledger."""

    kind: ClassVar[str] = "noop_ledgered"
    ledger: ClassVar[bool] = True


class NoopSession(Noop):
    """Open one session with one transaction, in the ledger."""

    kind: ClassVar[str] = "noop_session"
    ledger: ClassVar[bool] = True


class StampLedgered(Stamp):
    """The same in the ledger."""

    kind: ClassVar[str] = "stamp_ledgered"
    ledger: ClassVar[bool] = True


class NapLedgered(Nap):
    """The same in the ledger."""

    kind: ClassVar[str] = "nap_ledgered"
    ledger: ClassVar[bool] = True


async def noop(context: RunContext, request: Noop) -> Started:
    """Leave a mark."""
    del context, request
    return Started(at=mark())


async def noop_session(context: RunContext, request: Noop) -> Started:
    """Leave a mark, and count in a transaction of its own."""
    del request
    at = mark()
    async with context.batch() as batch:
        batch.counters["runs"] = batch.counters.get("runs", 0) + 1
    return Started(at=at)


async def stamp(context: RunContext, request: Stamp) -> Started:
    """Leave a mark with the producer's time."""
    del context
    return Started(at=mark(request.t0))


async def nap(context: RunContext, request: Nap) -> Started:
    """Sleep, then leave a mark."""
    del context
    await asyncio.sleep(request.seconds)
    return Started(at=mark())


JOBS = (
    Job(Noop, noop, timeout_s=TIMEOUT_S),
    Job(Stamp, stamp, timeout_s=TIMEOUT_S),
    Job(Nap, nap, timeout_s=TIMEOUT_S),
    Job(NoopLedgered, noop, timeout_s=TIMEOUT_S),
    Job(NoopSession, noop_session, timeout_s=TIMEOUT_S),
    Job(StampLedgered, stamp, timeout_s=TIMEOUT_S),
    Job(NapLedgered, nap, timeout_s=TIMEOUT_S),
)

_REQUESTS: dict[str, tuple[type[JobRequest[Started]], str]] = {
    "noop": (Noop, "x"),
    "stamp": (Stamp, "t0"),
    "nap": (Nap, "seconds"),
    "noop_ledgered": (NoopLedgered, "x"),
    "noop_session": (NoopSession, "x"),
    "stamp_ledgered": (StampLedgered, "t0"),
    "nap_ledgered": (NapLedgered, "seconds"),
}


def fields_of(kind: str, value: float) -> dict[str, float]:
    """Return the fields of a kind's request with its one number, as a stock producer passes them."""
    return {_REQUESTS[kind][1]: value}


def request_of(kind: str, value: float) -> JobRequest[Started]:
    """Return the request of a kind with its one number."""
    fields: dict[str, Any] = fields_of(kind, value)
    return _REQUESTS[kind][0](**fields)
