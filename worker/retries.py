"""Whether and when a failed attempt is tried again."""

import random
from asyncio import CancelledError
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Literal

from arq.worker import Retry
from pydantic import ValidationError

from db.any_errors import leaves, text_of
from db.errors import first_line, is_transient, is_unstorable
from holdfast.errors import RunFailed
from jobs.outcomes import FenceLost, JobCancelled, JobFailed, JobSnoozed, RunInterrupted
from jobs.retry_policy import RetryPolicy
from worker.logs import Logger
from worker.queue.ends import Poisoned

OBSTACLE_S = 2.0
"""Seconds after which a run is looked at again whose queue or kind is paused or at its limit."""
UNKNOWN_S = 15.0
"""Seconds after which a run is looked at again that met an error of the ledger that nobody has foreseen."""
LONGEST_S = 10 * 365 * 86_400.0
"""Seconds that a run waits at most for its next attempt, whatever its job asks for: each engine has such a date."""
TYPE_CHARACTERS, MESSAGE_CHARACTERS = 100, 2000
"""How much of an error's type and message is kept."""

NAMED = (FenceLost, JobCancelled, JobFailed, JobSnoozed, RunInterrupted)
"""What names an outcome; of several that come together the first counts."""

OutcomeName = Literal["succeeded", "failed", "retry", "snoozed", "interrupted", "cancelled", "lost"]


@dataclass(slots=True)
class Outcome:
    """How an attempt ended; ``lost`` means that another worker has the run now."""

    name: OutcomeName
    report: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    delay_s: float = 0.0


def backoff_s(failures: int, policy: RetryPolicy) -> float:
    """Return how many seconds to wait after so many failures: exponential, with full jitter.

    Full jitter (a uniform draw from zero to the bound) spreads a crowd best; source: M. Brooker, "Exponential Backoff
    And Jitter", AWS Architecture Blog, 2015.
    """
    bound = min(policy.slowest_s, policy.first_s * 2.0 ** min(failures, 30))
    return random.uniform(0.0, bound)  # noqa: S311 - no secret


def classify(error: BaseException, *, attempt: int, policy: RetryPolicy) -> Outcome:
    """Decide what an attempt's error means.

    Args:
        error: what the job raised.
        attempt: the number of this charged attempt, from 1.
        policy: the kind's.
    """
    reasons = _reasons(error)
    if (named := _named(reasons)) is not None:
        return named
    if any(base in policy.by_error for base in type(error).__mro__ if issubclass(base, BaseExceptionGroup)):
        reasons = [error]
    policies = [policy.for_error(reason, is_transient=is_transient(reason)) for reason in reasons]
    own, reason = min(zip(policies, reasons, strict=True), key=_strictness)
    told = describe(reason)
    if own is None:
        return Outcome("failed", error=told)
    if attempt < own.max_attempts:
        return Outcome("retry", error=told, delay_s=_within_time(backoff_s(attempt, own)))
    return Outcome("failed", error=told | {"message": f"{told['message']}; given up after {attempt} attempts"})


def _reasons(error: BaseException) -> list[BaseException]:
    """Return the errors of a group that say why it ended, what names an outcome first; any other error alone.

    A task that was cancelled because of another one, or that would only wait, is no reason beside others.
    """
    errors = sorted(leaves(error), key=_rank)
    failures = [one for one in errors if not isinstance(one, JobSnoozed | RunInterrupted | CancelledError)]
    return failures or [one for one in errors if not isinstance(one, CancelledError)] or errors


def _rank(error: BaseException) -> int:
    return next((rank for rank, kind in enumerate(NAMED) if isinstance(error, kind)), len(NAMED))


def _strictness(judged: tuple[RetryPolicy | None, BaseException]) -> int:
    own, _ = judged
    return 0 if own is None else own.max_attempts


def _named(reasons: list[BaseException]) -> Outcome | None:
    """Return the outcome that the first of these names by itself."""
    error = reasons[0]
    if isinstance(error, FenceLost):
        return Outcome("lost", error=describe(error))
    if isinstance(error, RunInterrupted):
        return Outcome("interrupted")
    if isinstance(error, JobSnoozed):
        return Outcome("snoozed", delay_s=_within_time(error.delay_s))
    if isinstance(error, JobCancelled):
        return Outcome("cancelled", error=stated("cancelled", first_line(error)) | {"state": "cancelled"})
    return None


def describe(error: BaseException) -> dict[str, Any]:
    """Return an error as the ledger and the wire keep it: a type for programs, one line for people.

    Of a group that is its first error.
    """
    if isinstance(error, BaseExceptionGroup):
        return describe(leaves(error)[0])
    if isinstance(error, ValidationError):  # of a report, for example; its first line has nothing but a number
        return stated(type(error).__name__, f"{error.title}: {_first_problem(error)}")
    kind: object = getattr(error, "code", None) if isinstance(error, JobFailed) else None
    return stated(type(error).__name__ if kind is None else kind, first_line(error))


def stated(kind: object, message: str) -> dict[str, Any]:
    """Return an error of this type and message, made such that every engine stores it, whatever a job put there."""
    word = text_of(kind.value if isinstance(kind, Enum) else kind)
    return {"type": _storable(word, TYPE_CHARACTERS), "message": _storable(message, MESSAGE_CHARACTERS)}


def _storable(text: str, most: int) -> str:
    cut = text if len(text) <= most else text[: most - 3] + "..."
    return cut.replace("\x00", "\\x00").encode(errors="backslashreplace").decode()


def _within_time(seconds: float) -> float:
    # In this order what is no number is 0: it is neither less nor more than another.
    return max(0.0, min(float(seconds), LONGEST_S))


def describe_invalid(error: ValidationError) -> dict[str, Any]:
    """Return why a request does not fit its kind, as ``describe`` returns errors."""
    return stated("invalid_request", _first_problem(error))


def _first_problem(error: ValidationError) -> str:
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    # A misspelt field is also a missing one: the misspelling says more.
    first = min(problems, key=lambda problem: problem["type"] == "missing")
    place = ".".join(str(part) for part in first["loc"]) or "request"
    return f"{place}: {first['msg']}"


def is_expected(error: BaseException) -> bool:
    """Whether an error is one of those that jobs end with, so that the log needs no traceback."""
    passing = (*NAMED, CancelledError)
    return all(isinstance(one, passing) or is_transient(one) for one in leaves(error))


class waiting_for_the_ledger:  # noqa: N801 - a context manager, and on the path of each run: no generator
    """Let a run wait whose ledger is out of reach for a passing reason, and park one that it cannot store."""

    __slots__ = ("_job_id", "_logger")

    def __init__(self, job_id: str, logger: Logger) -> None:
        self._job_id = job_id
        self._logger = logger

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, Retry | RunFailed):
            return
        if is_unstorable(error):
            message = f"the ledger cannot store it: {first_line(error)}"
            raise Poisoned(self._job_id, "unstorable", message) from error
        if not is_transient(error):
            # Whatever it is, the run is not over: to tell Redis so would lose it.
            self._logger.error("the ledger has failed, the run waits", exc_info=error)
            raise Retry(defer=UNKNOWN_S) from error
        self._logger.warning("the ledger is out of reach, the run waits", error=first_line(error))
        raise Retry(defer=1.0 + backoff_s(2, RetryPolicy())) from error
