"""What can go wrong between a producer and its run::

HoldfastError
|-- QueueUnavailable   Redis did not take or did not answer; ``outcome`` says what is known
|-- RunExists          that id is taken by another run
|-- RunNotFound        Redis knows no such run (any more)
|-- RunFailed          the run is over without a report; ``error_type`` and ``message`` say why
|   `-- RunCancelled   ... because somebody cancelled it
`-- WireFormatError    what Redis holds is not what ``docs/wire.md`` describes
"""

from typing import Literal


class HoldfastError(Exception):
    """The root of everything that Holdfast raises on purpose."""


class QueueUnavailable(HoldfastError):  # noqa: N818 - it names a state of the queue, as httpx's ConnectTimeout does
    """Redis did not take the request or did not answer.

    ``outcome`` is ``"refused"`` when the request surely had no effect, ``"unknown"`` when it may have had one:
    enqueueing once more under the same ``run_id`` is safe then, because an id is taken only once.
    """

    def __init__(self, message: str, *, outcome: Literal["refused", "unknown"]) -> None:
        super().__init__(message)
        self.outcome = outcome


class RunExists(HoldfastError):  # noqa: N818
    """A run with this id is queued, running, or its result is still kept."""


class RunNotFound(HoldfastError):  # noqa: N818
    """Redis knows no such run: it never existed, or its result has expired there. The ledger still has it."""


class RunFailed(HoldfastError):  # noqa: N818
    """The run is over without a report."""

    def __init__(self, run_id: str, error_type: str, message: str) -> None:
        super().__init__(f"run {run_id} failed: {message} ({error_type})")
        self.run_id = run_id
        self.error_type = error_type
        self.message = message


class RunCancelled(RunFailed):
    """The run was cancelled."""


class WireFormatError(HoldfastError):
    """A payload or result in Redis does not follow the format in ``docs/wire.md``."""
