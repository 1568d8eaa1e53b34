"""What can go wrong between a producer and its run::

HoldfastError
|-- QueueUnavailable   Redis did not take or did not answer; ``outcome`` says what is known
|-- PayloadTooLarge    the request is larger than the queue takes; nothing was sent
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
    enqueueing once more under the same ids is safe then, because an id is taken only once. ``run_ids`` are those ids,
    in order, where it was an enqueue that failed.
    """

    def __init__(self, message: str, *, outcome: Literal["refused", "unknown"], run_ids: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.run_ids = run_ids


class PayloadTooLarge(HoldfastError, ValueError):  # noqa: N818
    """A request is larger than the queue takes; nothing was sent.

    ``payload_bytes`` is its size as JSON and ``max_bytes`` the limit, both in bytes.
    """

    def __init__(self, kind: str, payload_bytes: int, max_bytes: int) -> None:
        super().__init__(
            f"the {kind} request has {payload_bytes} bytes but max_payload_bytes is {max_bytes}: put the data where "
            "the worker can read it and pass its place, or raise it here and MAX_PAYLOAD_BYTES of the workers"
        )
        self.payload_bytes = payload_bytes
        self.max_bytes = max_bytes


class RunExists(HoldfastError):  # noqa: N818
    """A run with this id is queued, running, or its result is still kept."""


class RunNotFound(HoldfastError):  # noqa: N818
    """Redis knows no such run: it never existed, or its result has expired there. The ledger still has it."""


class RunFailed(HoldfastError):  # noqa: N818
    """The run is over without a report; ``duplicate_of`` is the id of the run that stands for it, if one does."""

    def __init__(self, run_id: str, error_type: str, message: str, *, duplicate_of: str | None = None) -> None:
        super().__init__(f"run {run_id} failed: {message} ({error_type})")
        self.run_id = run_id
        self.error_type = error_type
        self.message = message
        self.duplicate_of = duplicate_of


class RunCancelled(RunFailed):
    """The run was cancelled; ``duplicate_of`` names the live run with the same unique key, if that was why."""


class WireFormatError(HoldfastError):
    """A payload or result in Redis does not follow the format in ``docs/wire.md``."""
