"""The workers that are alive, as the ledger sees them."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.types import UtcDateTime, json_column_type


class WorkerState(StrEnum):
    """What a worker that is alive does."""

    STARTING = "starting"
    """It puts back what was left, and takes up nothing yet."""
    READY = "ready"
    """It takes up runs."""
    DRAINING = "draining"
    """It was told to stop: it takes up nothing more, and its runs end or go back."""
    HELD = "held"
    """Its database was restored or cloned: it takes up nothing until somebody adopts it."""


class WorkerHeartbeat(Base):
    """One worker process; it renews ``heartbeat_at`` (the database's clock) and takes its row away when it ends."""

    __tablename__ = "worker_heartbeats"

    worker_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer())
    queue_home: Mapped[str] = mapped_column(String(255))
    """Where its queue lives; an embedded queue has one worker, so whoever holds it knows the others dead."""
    started_at: Mapped[datetime] = mapped_column(UtcDateTime())
    heartbeat_at: Mapped[datetime] = mapped_column(UtcDateTime(), index=True)
    state: Mapped[str] = mapped_column(String(10), server_default=WorkerState.READY.value)
    state_since: Mapped[datetime | None] = mapped_column(UtcDateTime())
    queues: Mapped[list[str] | None] = mapped_column(json_column_type())
    """The keys of the queues that it serves, the most urgent one first. NULL, as the time above: it is of a version
    that did not say."""
