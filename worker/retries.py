"""Whether and when a failed attempt is tried again."""

import random
from dataclasses import dataclass
from typing import Any, Literal

from db.errors import first_line, is_transient
from jobs.outcomes import FenceLost, JobFailed, RunInterrupted

OutcomeName = Literal["succeeded", "failed", "retry", "interrupted", "lost"]

FIRST_BACKOFF_S = 1.0
SLOWEST_BACKOFF_S = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended; ``lost`` means that another worker has the run now."""

    name: OutcomeName
    report: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    delay_s: float = 0.0


def backoff_s(attempt: int) -> float:
    """Return how many seconds to wait after the ``attempt``-th failure: exponential, with full jitter.

    Full jitter (a uniform draw from zero to the bound) spreads a crowd best; source: M. Brooker, "Exponential Backoff
    And Jitter", AWS Architecture Blog, 2015.
    """
    bound = min(SLOWEST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt, 30))
    return random.uniform(0.0, bound)  # noqa: S311 - no secret


def classify(error: BaseException, *, attempt: int, max_attempts: int) -> Outcome:
    """Decide what an attempt's error means.

    Args:
        error: what the job raised.
        attempt: the number of this charged attempt, from 1.
        max_attempts: how many the kind may have.
    """
    if isinstance(error, FenceLost):
        return Outcome("lost", error=describe(error))
    if isinstance(error, RunInterrupted):
        return Outcome("interrupted")
    if is_transient(error) or isinstance(error, TimeoutError):
        if attempt < max_attempts:
            return Outcome("retry", error=describe(error), delay_s=backoff_s(attempt))
        message = f"{first_line(error)}; given up after {attempt} attempts"
        return Outcome("failed", error={"type": type(error).__name__, "message": message})
    return Outcome("failed", error=describe(error))


def describe(error: BaseException) -> dict[str, Any]:
    """Return an error as the ledger and the wire keep it: a type for programs, one line for people."""
    kind = error.code if isinstance(error, JobFailed) else type(error).__name__
    return {"type": kind, "message": first_line(error)}
