"""The workers that are alive, as the ledger sees them."""

from datetime import datetime

from sqlalchemy import Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.types import UtcDateTime


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
