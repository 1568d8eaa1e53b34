"""The path of kinds that keep no ledger: Redis alone knows of their runs."""

from typing import Any

from pydantic import ValidationError

from holdfast.errors import RunFailed
from holdfast.ids import uuid7
from holdfast.requests import JobReport
from jobs.context import RunContext
from jobs.registry import Job
from worker.logs import get_logger
from worker.retries import describe, describe_invalid, is_expected
from worker.runtime import Runtime


async def run_light(runtime: Runtime, job: Job, job_id: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a kind that keeps no ledger.

    Raises:
        RunFailed: the request or the job failed.
    """
    try:
        request = job.request_type.model_validate(arguments)
    except ValidationError as invalid:
        error = describe_invalid(invalid)
        raise RunFailed(job_id, error["type"], error["message"]) from None
    context = RunContext(
        run_id=uuid7(),
        kind=job.kind,
        attempt=1,
        fence=0,
        settings=runtime.settings,
        should_stop=runtime.draining.is_set,
    )
    try:
        report: JobReport = await job.perform(context, request)
    except Exception as failure:
        if not is_expected(failure):
            get_logger(run_id=job_id, kind=job.kind).exception("the job raised an unexpected error")
        error = describe(failure)
        raise RunFailed(job_id, error["type"], error["message"]) from failure
    return report.model_dump(mode="json")
