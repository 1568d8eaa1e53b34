"""The tasks that imports load and archives take away."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Enum, ForeignKey, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from db.base import FullAuditModel
from db.models.user import User
from db.types import UtcDateTime, long_text_type


class TaskStatus(StrEnum):
    """How far a task has come."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


class Task(FullAuditModel):
    """One task of a user."""

    __tablename__ = "tasks"

    title: Mapped[str] = mapped_column(String(255))
    description: Mapped[str | None] = mapped_column(long_text_type())
    status: Mapped[TaskStatus] = mapped_column(
        Enum(TaskStatus, native_enum=False, length=20, create_constraint=True, name="status"),
        default=TaskStatus.PENDING,
        server_default=TaskStatus.PENDING.value,
    )
    user_id: Mapped[UUID] = mapped_column(Uuid(), ForeignKey(User.id, ondelete="CASCADE"), index=True)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    external_key: Mapped[str | None] = mapped_column(String(255), unique=True)
    """The task's name in the system it came from; makes imports idempotent."""
    import_run_id: Mapped[UUID | None] = mapped_column(Uuid())
    """The run that wrote this row last; without a foreign key, for the ledger is pruned and tasks stay."""
