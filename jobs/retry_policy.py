"""How a kind's failures are tried again."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.outcomes import JobFailed


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, per kind and per exception."""

    max_attempts: int = 5
    """Attempts that are charged; snoozed, interrupted and crashed ones are not."""
    first_s: float = 1.0
    """Bound of the wait after the first failure, in seconds; it doubles with each."""
    slowest_s: float = 300.0
    """Bound of the longest wait, in seconds."""
    by_error: Mapping[type[BaseException], "RetryPolicy | None"] = field(default_factory=dict)
    """Another policy for some exceptions and their subclasses; None: the failure is final. The nearest class counts.
    Of a group (``asyncio.TaskGroup`` raises one) each error is looked up, and the strictest policy counts, unless a
    class of groups is named here."""

    def for_error(self, error: BaseException, *, is_transient: bool) -> "RetryPolicy | None":
        """Return the policy for an error, None when trying again cannot help.

        Where ``by_error`` says nothing, what the database or the clock stood in the way of is tried again
        (``is_transient``, ``TimeoutError``) and everything else is final: a bug does not heal by repetition.
        """
        for base in type(error).__mro__:
            if base in self.by_error:
                return self.by_error[base]
        if isinstance(error, JobFailed):
            return None
        return self if is_transient or isinstance(error, TimeoutError) else None
