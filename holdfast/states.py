"""The states of a run. What may follow what is decided by the ledger, ``db.models.job_run.NEXT_STATES``."""

from enum import StrEnum


class RunState(StrEnum):
    """One run's state, as the ledger and the wire name it."""

    WAITING = "waiting"
    """It will start when it is due; ``reason`` says why it waits (scheduled, retry, interrupted, crashed)."""

    RUNNING = "running"
    """A worker has been admitted to it."""

    SUCCEEDED = "succeeded"
    """Over, with a report."""

    FAILED = "failed"
    """Over, with an error: a dead letter to be looked at."""

    CANCELLED = "cancelled"
    """Over, because somebody said so."""

    QUARANTINED = "quarantined"
    """Over until an operator looks: it could not be run at all, or took workers down with it."""

    @property
    def is_over(self) -> bool:
        """Whether a run in this state will never start again by itself."""
        return self not in LIVE_STATES


LIVE_STATES = frozenset({RunState.WAITING, RunState.RUNNING})
