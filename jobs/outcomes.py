"""How an attempt can end other than with a report. A job raises one of these; every other error is a failure.

Raised by a task of an ``asyncio.TaskGroup`` they mean the same.
"""


class JobFailed(Exception):  # noqa: N818 - an outcome
    """The job says that trying again cannot help.

    Args:
        code: a stable word for programs, such as ``missing_column``.
        message: one line for people: subject, value, rule, next step.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class JobSnoozed(Exception):  # noqa: N818 - an outcome
    """The job wants to be run again later; no attempt is charged.

    Args:
        delay_s: in so many seconds, at most ten years.
    """

    def __init__(self, delay_s: float) -> None:
        super().__init__(f"snoozed for {delay_s:g} s")
        self.delay_s = delay_s


class JobCancelled(Exception):  # noqa: N818 - an outcome
    """The run is to end as cancelled: somebody asked for it, or the job finds that it is not wanted any more."""


class RunInterrupted(Exception):  # noqa: N818 - an outcome
    """The worker is about to stop; the run goes on from its cursor, and no attempt is charged."""


class FenceLost(Exception):  # noqa: N818 - an outcome
    """Another worker was admitted to this run meanwhile: this one changes nothing more."""
