"""The ledger's row for one run, mapped onto the table that ``holdfast.outbox`` defines."""

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy.orm import Mapped

from db.base import Base
from holdfast.outbox import job_runs
from holdfast.states import RunState

NEXT_STATES: dict[RunState, frozenset[RunState]] = {
    RunState.WAITING: frozenset(
        {
            RunState.RUNNING,  # a worker was admitted
            RunState.FAILED,  # the kind is unknown or the request invalid
            RunState.CANCELLED,  # somebody said so, or it is the duplicate of a live run
        }
    ),
    RunState.RUNNING: frozenset(
        {
            RunState.SUCCEEDED,  # the job returned its report
            RunState.FAILED,  # its error is final, or its attempts are used up
            RunState.CANCELLED,  # somebody said so, or the job itself
            RunState.QUARANTINED,  # it ran alone and took its worker down with it
            RunState.WAITING,  # retry, snoozed, interrupted by a deploy, or its worker died
            RunState.RUNNING,  # its worker died and another was admitted before the put-back
        }
    ),
    RunState.SUCCEEDED: frozenset(),
    RunState.FAILED: frozenset({RunState.WAITING}),  # an operator replays it
    RunState.CANCELLED: frozenset(),
    RunState.QUARANTINED: frozenset({RunState.WAITING}),  # an operator lets it go on
}
"""What may follow what, and why."""


class JobRun(Base):
    """One execution of a job, over all its attempts. The columns are described in ``holdfast.outbox.job_runs``."""

    __table__ = job_runs

    if TYPE_CHECKING:
        id: Mapped[UUID]
        kind: Mapped[str]
        queue: Mapped[str]
        job_id: Mapped[str]
        request: Mapped[dict[str, Any]]
        state: Mapped[str]
        reason: Mapped[str | None]
        enqueued_at: Mapped[datetime]
        due_at: Mapped[datetime]
        dispatched_at: Mapped[datetime | None]
        fence: Mapped[int]
        attempts: Mapped[int]
        crashes: Mapped[int]
        worker_id: Mapped[str | None]
        started_at: Mapped[datetime | None]
        finished_at: Mapped[datetime | None]
        cursor: Mapped[dict[str, Any] | None]
        counters: Mapped[dict[str, int] | None]
        report: Mapped[dict[str, Any] | None]
        error: Mapped[dict[str, Any] | None]
        unique_key: Mapped[str | None]
        duplicate_of: Mapped[UUID | None]
        cancel_requested_at: Mapped[datetime | None]
        live_key: Mapped[str | None]
