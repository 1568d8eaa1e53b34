"""What a job or a hook raises to say how an entry ends."""

from collections.abc import Awaitable, Callable
from typing import Literal

from arq.worker import Retry

from holdfast.errors import RunFailed

PROCESS_ENDS = (KeyboardInterrupt, GeneratorExit)
"""What a job raises only when the process ends, or the event loop. Whatever else it raises is an end of the job alone:
``SystemExit`` too, so that a library that calls ``sys.exit()`` does not stop the runs beside it."""


class Refused(Exception):  # noqa: N818
    """The entry cannot be run; ``reason`` becomes its result.

    ``lacks`` says what could be found yet: its payload, or its function in another worker. Empty: it can never be run.
    """

    def __init__(self, reason: BaseException, *, lacks: Literal["", "payload", "function"] = "") -> None:
        super().__init__(str(reason))
        self.reason = reason
        self.lacks = lacks


class Withdrawn(Exception):  # noqa: N818
    """``on_refused`` says: the entry is taken away, no end is told; ``then`` is called once Redis has heard of it."""

    def __init__(self, then: Callable[[], Awaitable[None]]) -> None:
        super().__init__("the entry is taken away")
        self.then = then


class Poisoned(RunFailed):
    """A function says that its entry can never be run as it is: it is parked in quarantine, its result says why."""


class Postponed(Retry):
    """A function says that it was not tried: its entry goes back as after ``Retry``, and no try is counted."""
