"""One attempt of one run, step by step: decode -> admit -> perform -> classify -> record_finished -> report.

This is the wrapper around every job function, under our own worker as under stock arq's: the invariants live here.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from arq.worker import Retry
from pydantic import ValidationError

from db.mixins import acting_as
from db.query_log import asked_by
from db.repositories.job_run import BornRun
from holdfast.requests import JobRequest
from holdfast.wire import MAX_RUN_ID
from jobs.context import RunContext
from jobs.outcomes import JobCancelled
from jobs.registry import Job
from worker import ledger
from worker.groups import Answer
from worker.ledger import Admission, Admitted, AlreadyOver, HeldElsewhere, Limited, Suspect
from worker.light import run_light
from worker.logs import Logger, get_logger
from worker.newcomers import is_storable_id
from worker.progress import ProgressPublisher
from worker.queue.ends import PROCESS_ENDS, Poisoned
from worker.queue.slots import Slot
from worker.recording import record_finished, settled
from worker.reports import Report, plain_report, report_end, report_outcome
from worker.retries import OBSTACLE_S, Outcome, classify, describe_invalid, is_expected, waiting_for_the_ledger
from worker.runtime import Runtime

HELD_ELSEWHERE_S = 5.0
"""Seconds after which an entry is looked at again whose run a living worker has."""
SUSPECT_AGAIN_S = 120.0
"""Seconds after which a suspect is looked at again that could not be alone, because others went on for long."""

JobFunction = Callable[..., Awaitable[Report | None]]


@dataclass(slots=True)
class Call:
    """What arq hands over, decoded."""

    job: Job
    born: BornRun
    request: JobRequest[Any]
    slot: Slot | None
    """Among the runs of our own worker; None under stock arq."""


def job_function(job: Job) -> JobFunction:
    """Return the function that is registered with arq for a kind."""

    kind, keeps_ledger = job.kind, job.ledger

    async def perform_run(ctx: Mapping[str, Any], /, *args: Any, **kwargs: Any) -> Report | None:
        runtime: Runtime = ctx["runtime"]
        if not keeps_ledger:
            with runtime.beginning():
                return await run_light(runtime, job, ctx, _as_request(args, kwargs))
        if not is_storable_id(ctx["job_id"]):
            message = f"a run's id has at most {MAX_RUN_ID} characters and no NUL: use a UUID version 7"
            raise Poisoned(ctx["job_id"], "invalid_id", message)
        born = BornRun(
            kind=kind,
            queue=ctx.get("queue", runtime.queues[0]),
            job_id=ctx["job_id"],
            enqueued_at=ctx["enqueue_time"],
            request=_as_request(args, kwargs),
            unique_key=ctx.get("payload", {}).get("u"),
        )
        return await run_attempt(runtime, job, born, is_unwanted=bool(ctx.get("aborted")), slot=ctx.get("slot"))

    return perform_run


async def run_attempt(
    runtime: Runtime,
    job: Job,
    born: BornRun,
    *,
    is_unwanted: bool = False,
    slot: Slot | None = None,
) -> Report | None:
    """Take a run from its payload to its end.

    Args:
        runtime: this worker.
        job: the run's kind.
        born: what Redis tells of it.
        is_unwanted: its cancellation was asked for before it started.
        slot: taken for as long as the job's function runs.

    Returns:
        The report.

    Raises:
        RunFailed: the run is over without one (arq tells the producer).
        arq.worker.Retry: it is not over; arq leaves the entry in the queue.
        asyncio.CancelledError: the worker is stopping; the run is put down as interrupted.
    """
    logger = get_logger(run_id=born.job_id, kind=job.kind)
    try:
        call = decode(job, born, slot)
    except ValidationError as invalid:
        return await _refuse(runtime, job, born, describe_invalid(invalid))
    with runtime.beginning():
        admission, stop = await _admit(runtime, call, logger, is_unwanted=is_unwanted)
        if not isinstance(admission, Suspect):
            return await _run_if_admitted(runtime, call, admission, logger, stop=stop)
    return await _run_alone(runtime, call, admission, logger)


async def _admit(
    runtime: Runtime, call: Call, logger: Logger, *, is_unwanted: bool
) -> tuple[Admission, asyncio.CancelledError | None]:
    born = call.born
    with waiting_for_the_ledger(born.job_id, logger):
        if is_unwanted:
            over, _ = await settled(runtime, Answer.of(ledger.cancel(born)))
            return over, None
        if (obstacle := runtime.obstacle(queue=born.queue, kind=call.job.kind)) is not None:
            await ledger.enter(born, obstacle)
            raise Retry(defer=OBSTACLE_S)
        return await settled(runtime, runtime.ledger.admit(born))


async def _run_alone(runtime: Runtime, call: Call, suspect: Suspect, logger: Logger) -> Report | None:
    logger.warning("the run is a suspect and runs alone", run_id=suspect.run_id)
    async with runtime.alone(suspect.run_id) as is_alone:
        if not is_alone:
            raise Retry(defer=SUSPECT_AGAIN_S)
        with waiting_for_the_ledger(call.born.job_id, logger):
            admission, stop = await settled(runtime, runtime.ledger.admit_alone(call.born))
        return await _run_if_admitted(runtime, call, admission, logger, stop=stop)


async def _run_if_admitted(
    runtime: Runtime, call: Call, admission: Admission, logger: Logger, *, stop: asyncio.CancelledError | None
) -> Report | None:
    if isinstance(admission, Admitted):
        return await _run_admitted(runtime, call, admission, logger, stop=stop)
    if isinstance(admission, Limited):
        raise Retry(defer=OBSTACLE_S)
    assert not isinstance(admission, Suspect)  # noqa: S101 - a suspect that is alone is admitted or over
    return _report_refused(runtime, call.job, admission, call.request)


async def _refuse(runtime: Runtime, job: Job, born: BornRun, error: dict[str, Any]) -> Report | None:
    logger = get_logger(run_id=born.job_id, kind=job.kind)
    logger.warning("the request is invalid", error=error)
    with waiting_for_the_ledger(born.job_id, logger):
        admission = await ledger.refuse(born, error)
    return _report_refused(runtime, job, admission, None)


def _report_refused(
    runtime: Runtime, job: Job, admission: AlreadyOver | HeldElsewhere, request: JobRequest[Any] | None
) -> Report | None:
    if isinstance(admission, AlreadyOver):
        return report_end(runtime, job, admission, request=request)
    logger = get_logger(run_id=admission.run_id, kind=job.kind)
    logger.debug("another worker has the run", worker_id=admission.worker_id)
    raise Retry(defer=HELD_ELSEWHERE_S)


def decode(job: Job, born: BornRun, slot: Slot | None = None) -> Call:
    """Read the request.

    Raises:
        pydantic.ValidationError: it does not fit the kind.
    """
    return Call(job, born, job.request_type.model_validate(born.request), slot)


async def _run_admitted(
    runtime: Runtime, call: Call, admitted: Admitted, logger: Logger, *, stop: asyncio.CancelledError | None
) -> Report | None:
    started = time.monotonic()
    try:
        logger = logger.bind(run_id=admitted.run_id, attempt=admitted.attempt)
        logger.info("run started", fence=admitted.fence)
        ended = _perform_in_slot(runtime, call, admitted) if stop is None else _stopped(runtime, call, admitted, stop)
        outcome, cancelled = await ended
        recorded = await record_finished(runtime, admitted, outcome, logger)
    finally:
        runtime.active.discard(admitted.run_id)
    _log_end(logger, recorded, started)
    if cancelled is not None:
        raise cancelled
    if recorded.name in {"retry", "snoozed"} and runtime.is_unwanted(admitted.run_id, call.born.job_id):
        with waiting_for_the_ledger(call.born.job_id, logger):  # it was cancelled while that was written down
            return _report_refused(runtime, call.job, await ledger.cancel(call.born), call.request)
    if recorded.name == "lost":
        return await _report_for_another(runtime, call, admitted, logger)
    return report_outcome(runtime, call.job, admitted.run_id, recorded, request=call.request)


def _log_end(logger: Logger, recorded: Outcome, started: float) -> None:
    went_well = recorded.name in {"succeeded", "interrupted", "snoozed"}
    if went_well and not logger.writes_info:
        return
    seconds = round(time.monotonic() - started, 3)
    log = logger.info if went_well else logger.warning
    log(f"run {recorded.name}", duration_s=seconds, **({"error": recorded.error} if recorded.error else {}))


async def _report_for_another(runtime: Runtime, call: Call, admitted: Admitted, logger: Logger) -> Report | None:
    # Its worker may have ended the run already, or this one without hearing of its own commit: Redis is told again.
    with waiting_for_the_ledger(call.born.job_id, logger):
        over = await ledger.find_end(admitted.run_id)
    if over is None:
        raise Retry(defer=HELD_ELSEWHERE_S)
    return report_end(runtime, call.job, over, request=call.request)


async def _perform_in_slot(
    runtime: Runtime, call: Call, admitted: Admitted
) -> tuple[Outcome, asyncio.CancelledError | None]:
    slot = call.slot
    if slot is None:
        return await perform(runtime, call, admitted)
    try:
        if not slot.is_held and not await slot.take():
            return Outcome("interrupted"), None
    except asyncio.CancelledError as cancelled:
        return await _stopped(runtime, call, admitted, cancelled)
    ended = await perform(runtime, call, admitted)
    slot.release()
    return ended


async def perform(runtime: Runtime, call: Call, admitted: Admitted) -> tuple[Outcome, asyncio.CancelledError | None]:
    """Run the job's function; whatever it raises becomes an outcome."""
    context = RunContext(
        run_id=admitted.run_id,
        kind=call.job.kind,
        attempt=admitted.attempt,
        fence=admitted.fence,
        settings=runtime.settings,
        should_stop=runtime.should_stop,
        publish=ProgressPublisher(runtime.redis, call.born.job_id),
    )
    asked_by(context)
    limit = runtime.deadlines.limit(call.job.timeout_s)
    try:
        with acting_as(call.job.kind), limit:
            report = await call.job.perform(context, call.request)
        return Outcome("succeeded", report=plain_report(report)), None
    except asyncio.CancelledError as cancelled:
        if limit.task_is_cancelled:
            return await _stopped(runtime, call, admitted, cancelled)
        failure: BaseException = RuntimeError("the job was cancelled by something of its own")
    except PROCESS_ENDS:
        raise
    except BaseException as error:  # noqa: BLE001 - classify looks at each
        failure = error
        if not is_expected(error):
            get_logger(run_id=admitted.run_id, kind=call.job.kind).exception("the job raised an unexpected error")
    return classify(failure, attempt=admitted.attempt, policy=call.job.retries), None


async def _stopped(
    runtime: Runtime, call: Call, admitted: Admitted, cancelled: asyncio.CancelledError
) -> tuple[Outcome, asyncio.CancelledError | None]:
    if runtime.is_unwanted(admitted.run_id, call.born.job_id):
        return classify(JobCancelled("cancelled while it was running"), attempt=1, policy=call.job.retries), None
    return Outcome("interrupted"), cancelled


def _as_request(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    # A stock producer may pass the request as one positional object; anything else shows up as unknown fields.
    if len(args) == 1 and isinstance(args[0], dict) and not kwargs:
        return args[0]
    return {**kwargs, **({"positional arguments": list(args)} if args else {})}
