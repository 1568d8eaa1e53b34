"""The attempts of a run, one insert-only row each, written when the attempt is over."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.types import UtcDateTime, json_column_type


class JobAttempt(Base):
    """How one attempt ended: succeeded, failed, retry, interrupted or crashed."""

    __tablename__ = "job_attempts"

    run_id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True)
    """Without a foreign key, for the run moves into the history and its attempts stay where they are."""
    fence: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    """The number that the log shows; interrupted and crashed attempts are repeated under the same one."""
    worker_id: Mapped[str] = mapped_column(String(100))
    started_at: Mapped[datetime] = mapped_column(UtcDateTime())
    finished_at: Mapped[datetime] = mapped_column(UtcDateTime())
    outcome: Mapped[str] = mapped_column(String(20))
    error: Mapped[dict[str, Any] | None] = mapped_column(json_column_type())
