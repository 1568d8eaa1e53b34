"""The erasure list: rows that were deleted for good, to be erased again when an archive or a backup comes back."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import String, UniqueConstraint, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.types import UtcDateTime
from holdfast.outbox import uuid7


class Erasure(Base):
    """One row that must not come back. It holds the row's key and nothing of its content."""

    __tablename__ = "erasures"
    __table_args__ = (UniqueConstraint("table_name", "row_key"),)

    id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True, default=uuid7)
    table_name: Mapped[str] = mapped_column(String(255))
    row_key: Mapped[str] = mapped_column(String(255))
    """As ``db.archives.keys.key_text`` writes it."""
    reason: Mapped[str] = mapped_column(String(500))
    erased_at: Mapped[datetime] = mapped_column(UtcDateTime())
    erased_by: Mapped[str | None] = mapped_column(String(150))
