"""What arq is told of a run that is over or goes back: a report, or an exception that says which."""

from typing import Any
from uuid import UUID

from arq.worker import Retry
from pydantic_core import to_json

from db.errors import first_line
from holdfast.errors import RunCancelled, RunFailed
from holdfast.requests import JobReport, JobRequest
from holdfast.states import RunState
from holdfast.wire import MAX_REPORT_BYTES
from jobs.outcomes import JobFailed
from jobs.registry import Job
from worker.ledger import AlreadyOver
from worker.logs import get_logger
from worker.retries import Outcome
from worker.runtime import Runtime

Report = dict[str, Any]


def plain_report(report: JobReport) -> Report:
    """Return a job's report as JSON values.

    Raises:
        JobFailed: it is larger than MAX_REPORT_BYTES.
    """
    plain = report.model_dump(mode="json")
    try:
        size = len(to_json(plain))
    except ValueError:  # half a surrogate pair, which is for the ledger to refuse
        return plain
    if size > MAX_REPORT_BYTES:
        raise JobFailed(
            "report_too_large",
            f"the report has {size} bytes as JSON, the limit is {MAX_REPORT_BYTES}: put the data into a file or a "
            "table and report its place",
        )
    return plain


def report_outcome(
    runtime: Runtime, job: Job, run_id: UUID, outcome: Outcome, *, request: JobRequest[Any]
) -> Report | None:
    """Turn a recorded outcome into what arq understands.

    Raises:
        arq.worker.Retry: the run is not over.
        RunFailed: it is over without a report.
    """
    if outcome.name == "succeeded":
        return _report_success(runtime, job, run_id, outcome.report, request=request)
    if outcome.name in {"retry", "snoozed", "interrupted"}:
        raise Retry(defer=outcome.delay_s)
    over = AlreadyOver(run_id, RunState(outcome.name), outcome.report, outcome.error)
    return report_end(runtime, job, over, request=request)


def report_end(runtime: Runtime, job: Job, over: AlreadyOver, *, request: JobRequest[Any] | None) -> Report | None:
    """Hand out the stored end of a run (I3), and clean up after one that has not failed and can be read.

    Raises:
        RunFailed: it has no report.
    """
    if over.state is RunState.SUCCEEDED:
        return _report_success(runtime, job, over.run_id, over.report, request=request)
    error = over.error or {"type": over.state.value, "message": f"the run is {over.state.value}"}
    failure = RunCancelled if over.state is RunState.CANCELLED else RunFailed
    told = str(error.get("type")), str(error.get("message"))
    raise failure(str(over.run_id), *told, duplicate_of=error.get("duplicate_of"))


def _report_success(
    runtime: Runtime, job: Job, run_id: UUID, report: Report | None, *, request: JobRequest[Any] | None
) -> Report | None:
    if job.clean_up is not None and request is not None:
        try:
            job.clean_up(runtime.settings, request)
        except Exception as problem:  # noqa: BLE001 - the run is over all the same, and Redis is to hear how
            get_logger(run_id=run_id, kind=job.kind).warning("clean-up failed", error=first_line(problem))
    return report
