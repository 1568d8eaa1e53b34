"""The path of kinds that keep no ledger: Redis alone knows of their runs."""

import asyncio
from collections.abc import Mapping
from typing import Any, NoReturn
from uuid import UUID

from arq.worker import Retry
from pydantic import ValidationError

from db.query_log import asked_by
from db.repositories.job_run import as_uuid7
from holdfast.errors import RunCancelled, RunFailed
from holdfast.ids import uuid7
from jobs.context import RunContext
from jobs.registry import Job
from worker.logs import get_logger
from worker.queue.ends import PROCESS_ENDS, Postponed
from worker.reports import plain_report
from worker.retries import OBSTACLE_S, Outcome, classify, describe_invalid, is_expected
from worker.runtime import Runtime


class _LightContext(RunContext):
    """The context of a run that only Redis knows. Few ask for its id as a UUID, which takes long to make."""

    __slots__ = ("_id",)

    _id: UUID | str

    @property
    def run_id(self) -> UUID:
        if isinstance(self._id, str):
            self._id = as_uuid7(self._id) or uuid7()
        return self._id

    @run_id.setter
    def run_id(self, told: UUID | str) -> None:
        self._id = told


async def run_light(runtime: Runtime, job: Job, ctx: Mapping[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a kind that keeps no ledger.

    Its charged attempts are counted in Redis, by arq's retry counter.

    Raises:
        RunFailed: the request or the job failed (``RunCancelled`` when it was cancelled).
        Postponed: not now: it is paused or held, or the job was interrupted or snoozed.
        arq.worker.Retry: the attempt failed, and the kind's policy tries it again.
    """
    job_id: str = ctx["job_id"]
    if ctx.get("aborted"):
        raise RunCancelled(job_id, "cancelled", "cancelled before it started")
    if runtime.obstacle(queue=ctx.get("queue", runtime.queues[0]), kind=job.kind) is not None:
        raise Postponed(defer=OBSTACLE_S)
    try:
        request = job.request_type.model_validate(arguments)
    except ValidationError as invalid:
        error = describe_invalid(invalid)
        raise RunFailed(job_id, error["type"], error["message"]) from None
    if (slot := ctx.get("slot")) is not None and not await slot.take():
        raise Postponed
    told: Any = job_id  # the setter takes it as it is
    context = _LightContext(told, job.kind, ctx["job_try"], 0, runtime.settings, runtime.should_stop)
    asked_by(context)
    try:
        with runtime.deadlines.limit(job.timeout_s):
            report = await job.perform(context, request)
        return plain_report(report)
    except (asyncio.CancelledError, *PROCESS_ENDS):
        raise
    except BaseException as failure:  # noqa: BLE001 - classify looks at each
        if not is_expected(failure):
            get_logger(run_id=job_id, kind=job.kind).exception("the job raised an unexpected error")
        _raise_outcome(job_id, classify(failure, attempt=context.attempt, policy=job.retries), failure)


def _raise_outcome(job_id: str, outcome: Outcome, failure: BaseException) -> NoReturn:
    if outcome.name in {"interrupted", "snoozed"}:
        raise Postponed(defer=outcome.delay_s) from None
    if outcome.name == "retry":
        raise Retry(defer=outcome.delay_s) from failure
    error = outcome.error or {}
    if outcome.name == "cancelled":
        raise RunCancelled(job_id, error["type"], error["message"]) from None
    raise RunFailed(job_id, error["type"], error["message"]) from failure
