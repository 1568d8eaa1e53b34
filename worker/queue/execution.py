"""One claimed entry from its payload to its end, with arq's meaning of every case (arq 0.28, ``Worker.run_job``)."""

import asyncio
import logging
import pickle
import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import arq.worker
from arq.jobs import DeserializationError, serialize_result
from arq.utils import args_to_string, ms_to_datetime, to_ms, truncate
from arq.worker import JobExecutionFailed, Retry, RetryJob

from worker.queue.claims import ENDED_BEFORE, WRONG_TYPE, Claimed
from worker.queue.ends import PROCESS_ENDS, Poisoned, Postponed, Refused, Withdrawn
from worker.queue.finish import Finish
from worker.queue.slots import Slot

if TYPE_CHECKING:
    from worker.queue.worker import Worker

logger = logging.getLogger("arq.worker")  # arq's users filter and test by this name

LATE_AFTER_MS = 1200
_as_datetime = lru_cache(maxsize=256)(ms_to_datetime)  # what was enqueued together has one time


@dataclass(slots=True)
class Call:
    """What a payload asks for."""

    name: str = "<unknown>"
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    enqueued_ms: int = 0
    payload: dict[str, Any] = field(default_factory=dict)


def now_ms() -> int:
    """Return Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Execution:
    """One claimed entry being run."""

    __slots__ = ("_call", "_claimed", "_function", "_slot", "_started_ms", "_worker", "ctx")

    def __init__(self, worker: "Worker", claimed: Claimed, slot: Slot) -> None:
        self._worker = worker
        self._claimed = claimed
        self._slot = slot
        self._call = Call()
        self._function: Any = None
        self._started_ms = now_ms()
        self.ctx: dict[str, Any] = {}

    async def run(self) -> Finish:
        """Run it; whatever the job does, the return value says how the claim ends."""
        worker, claimed = self._worker, self._claimed
        if claimed.payload_bytes == ENDED_BEFORE:  # stock abort() has put its entry back a moment after its end
            return Finish(claimed, "over")
        try:
            self._decode()
        except Refused as refusal:
            return await self._refuse(refusal)
        if not worker.functions_take_slots and not await self._slot.take():
            return Finish(claimed, "back")
        self.ctx = {
            **worker.ctx,
            "job_id": claimed.job_id,
            "job_try": claimed.job_try,
            "enqueue_time": _as_datetime(self._call.enqueued_ms),
            "score": claimed.score,
            "queue": claimed.keys.queue,
            "payload": self._call.payload,
            "aborted": claimed.aborted,
            "slot": self._slot,
        }
        if worker.on_job_start:
            await worker.on_job_start(self.ctx)
        self._started_ms = now_ms()
        try:
            result = await self._perform()
        except PROCESS_ENDS:
            raise
        except BaseException as error:  # noqa: BLE001 - each is classified
            finish = self._classify(error)
        else:
            worker.jobs_complete += 1
            finish = self._over(result, success=True, keep_ms=self._result_ms())
        if worker.on_job_end:
            await worker.on_job_end(self.ctx)
        return finish

    async def _refuse(self, refusal: Refused) -> Finish:
        worker, claimed = self._worker, self._claimed
        if worker.on_refused is not None:
            try:
                await worker.on_refused(claimed, refusal, self._call.enqueued_ms)
            except (Retry, Withdrawn) as answer:
                if refusal.lacks == "function":
                    worker.engine.let_others_first()
                if isinstance(answer, Withdrawn):
                    return Finish(claimed, "away", then=answer.then)
                return Finish(claimed, "back", delay_ms=answer.defer_score)
        worker.jobs_failed += 1
        return self._over(refusal.reason, success=False, keep_ms=worker.default_result_ms())

    def _decode(self) -> None:
        worker, claimed, call = self._worker, self._claimed, self._call
        if claimed.id_problem:
            raise self._poison(claimed.id_problem)
        if claimed.payload_bytes == WRONG_TYPE:
            raise self._poison(f"arq:job:{claimed.job_id} is not a string")
        if claimed.payload is None:
            logger.warning("job %s expired", claimed.job_id)
            claimed.poison = "the payload is gone: it expired, or was removed"
            raise Refused(JobExecutionFailed("job expired"), lacks="payload")
        if claimed.payload_bytes > len(claimed.payload):
            raise self._poison(
                f"the payload has {claimed.payload_bytes} bytes, the limit is {worker.max_payload_bytes}"
            )
        try:
            payload_try = self._deserialize(claimed.payload)
        except DeserializationError as error:
            logger.exception("deserializing job %s failed", claimed.job_id)
            claimed.poison = f"{type(error.__cause__ or error).__name__}: {error.__cause__ or error}"
            raise Refused(error) from error
        self._check_types()
        if claimed.aborted and not worker.functions_see_aborts:
            waited_s = (now_ms() - call.enqueued_ms) / 1000
            logger.info("%6.2fs ⊘ %s:%s aborted before start", waited_s, claimed.job_id, call.name)
            raise Refused(asyncio.CancelledError())
        self._function = worker.functions.get(call.name)
        if self._function is None:
            logger.warning("job %s, function %r not found", claimed.job_id, call.name)
            claimed.poison = f"function {call.name!r} not found"
            raise Refused(JobExecutionFailed(f"function {call.name!r} not found"), lacks="function")
        claimed.ref = call.name if hasattr(self._function, "next_run") else f"{claimed.job_id}:{call.name}"
        self._check_tries(payload_try)

    def _deserialize(self, data: bytes) -> int | None:
        """Read the payload into ``_call``; returns the try that the producer asks for."""
        call, deserialize = self._call, self._worker.job_deserializer or pickle.loads
        try:
            payload = deserialize(data)
            call.name, call.args, call.kwargs = payload["f"], payload["a"], payload["k"]
            call.enqueued_ms, call.payload = payload["et"], payload
            job_try: int | None = payload["t"]
        except Exception as error:
            raise DeserializationError("unable to deserialize job") from error
        return job_try

    def _check_types(self) -> None:
        call = self._call
        fits = isinstance(call.name, str) and isinstance(call.args, list | tuple) and isinstance(call.kwargs, dict)
        if not fits or not isinstance(call.enqueued_ms, int) or not 0 <= call.enqueued_ms < 32_503_680_000_000:
            self._call = Call()
            raise self._poison("f must be text, a an array, k an object and et Unix time in milliseconds")

    def _check_tries(self, job_try: int | None) -> None:
        worker, claimed = self._worker, self._claimed
        if isinstance(job_try, int) and job_try > claimed.job_try:
            claimed.job_try = job_try
        limit = worker.max_tries if self._function.max_tries is None else self._function.max_tries
        if claimed.job_try > limit:
            waited_s = (now_ms() - self._call.enqueued_ms) / 1000
            logger.warning("%6.2fs ! %s max retries %d exceeded", waited_s, self._claimed.ref, limit)
            raise Refused(JobExecutionFailed(f"max {limit} retries exceeded"))

    def _poison(self, reason: str) -> Refused:
        logger.warning("job %s is parked in quarantine: %s", self._claimed.job_id, reason)
        self._claimed.poison = reason
        return Refused(JobExecutionFailed(reason))

    async def _perform(self) -> Any:
        worker, call, function = self._worker, self._call, self._function
        talks = logger.isEnabledFor(logging.INFO)
        if talks:
            self._log_start()
        if worker.functions_keep_time:
            result = await function.coroutine(self.ctx, *call.args, **(call.kwargs or {}))
        else:
            timeout_s = worker.job_timeout_s if function.timeout_s is None else function.timeout_s
            with worker.engine.deadlines.limit(timeout_s):
                result = await function.coroutine(self.ctx, *call.args, **(call.kwargs or {}))
        if talks:
            shown = "" if result is None or not worker.log_results else truncate(repr(result))
            logger.info("%6.2fs ← %s ● %s", (now_ms() - self._started_ms) / 1000, self._claimed.ref, shown)
        return result

    def _log_start(self) -> None:
        call, claimed, started_ms = self._call, self._claimed, self._started_ms
        extra = f" try={claimed.job_try}" if claimed.job_try > 1 else ""
        if started_ms - claimed.score > LATE_AFTER_MS:
            extra += f" delayed={(started_ms - claimed.score) / 1000:0.2f}s"
        shown = args_to_string(call.args, call.kwargs or {})
        logger.info("%6.2fs → %s(%s)%s", (started_ms - call.enqueued_ms) / 1000, self._claimed.ref, shown, extra)

    def _classify(self, error: BaseException) -> Finish:
        worker, job_id = self._worker, self._claimed.job_id
        took_s = (now_ms() - self._started_ms) / 1000
        if worker.retry_jobs and isinstance(error, Retry):
            delay_ms = error.defer_score
            logger.info("%6.2fs ↻ %s retrying job in %0.2fs", took_s, self._claimed.ref, (delay_ms or 0) / 1000)
            return self._back(delay_ms or None, charge=not isinstance(error, Postponed))
        cancelled = isinstance(error, asyncio.CancelledError)
        task = asyncio.current_task()
        if cancelled and job_id in worker.aborting_tasks:
            logger.info("%6.2fs ⊘ %s aborted", took_s, self._claimed.ref)
            worker.aborting_tasks.discard(job_id)
        elif worker.retry_jobs and (cancelled or isinstance(error, RetryJob)):
            logger.info("%6.2fs ↻ %s cancelled, will be run again", took_s, self._claimed.ref)
            # Cancelled from outside, by a shutdown: that is not the job's fault and costs it no try.
            return self._back(None, charge=not (cancelled and task is not None and task.cancelling()))
        elif isinstance(error, Poisoned):
            self._poison(error.message)
        else:
            extra = getattr(error, "extra", None)
            extra = extra() if callable(extra) else extra
            logger.error(
                "%6.2fs ! %s failed, %s: %s",
                took_s,
                self._claimed.ref,
                type(error).__name__,
                error,
                exc_info=error,
                extra={"extra": extra},
            )
        worker.jobs_failed += 1
        return self._over(error, success=False, keep_ms=self._result_ms())

    def _back(self, delay_ms: int | None, *, charge: bool = True) -> Finish:
        self._worker.jobs_retried += 1
        return Finish(self._claimed, "back", job_try=self._claimed.job_try if charge else None, delay_ms=delay_ms)

    def _over(self, result: Any, *, success: bool, keep_ms: int | None) -> Finish:
        finish = Finish(self._claimed, "over", keep_in_progress_ms=self._keep_in_progress_ms())
        if keep_ms == 0:
            return finish
        call, claimed = self._call, self._claimed
        finish.result_ms = keep_ms
        finish.result = serialize_result(
            call.name,
            call.args,
            call.kwargs or {},
            claimed.job_try,
            call.enqueued_ms,
            success,
            result,
            self._started_ms,
            now_ms(),
            self._claimed.ref,
            claimed.keys.queue,
            job_id=claimed.job_id,
            serializer=(success and self._worker.plain_serializer) or self._worker.job_serializer,
        )
        return finish

    def _result_ms(self) -> int | None:
        """Return how long the result is kept: None for ever, 0 not at all."""
        worker, function = self._worker, self._function
        forever = worker.keep_result_forever if function.keep_result_forever is None else function.keep_result_forever
        if forever:
            return None
        seconds = worker.keep_result_s if function.keep_result_s is None else function.keep_result_s
        return int(seconds * 1000)

    def _keep_in_progress_ms(self) -> int | None:
        # So that a cron job whose clocks differ between workers is not enqueued twice (arq/constants.py).
        if not hasattr(self._function, "next_run"):
            return None
        return to_ms(arq.worker.keep_cronjob_progress)  # type: ignore[attr-defined]
