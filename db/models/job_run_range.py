"""The parts of a run that has several connections at work: one row each, with a cursor and counters of its own."""

from typing import Any
from uuid import UUID

from sqlalchemy import Integer, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.types import json_column_type


class JobRunRange(Base):
    """One connection's share of a run. Its counters are what is not yet added to the run's own."""

    __tablename__ = "job_run_ranges"

    run_id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True)
    number: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    cursor: Mapped[dict[str, Any]] = mapped_column(json_column_type())
    counters: Mapped[dict[str, int]] = mapped_column(json_column_type())
