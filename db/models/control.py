"""What operators say about queues and kinds: paused, limited."""

from datetime import datetime

from sqlalchemy import Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.types import UtcDateTime


class Control(Base):
    """One queue's or kind's control; no row is no restriction. Workers cache them for a second."""

    __tablename__ = "controls"

    scope: Mapped[str] = mapped_column(String(10), primary_key=True)
    """``queue`` or ``kind``."""
    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    paused_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    max_running: Mapped[int | None] = mapped_column(Integer())
    """How many runs may run at the same time, over all workers."""
