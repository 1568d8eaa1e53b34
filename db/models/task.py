"""The tasks that imports load and archives take away."""

from datetime import datetime
from enum import StrEnum
from typing import cast
from uuid import UUID

from sqlalchemy import Enum, ForeignKey, Index, Table, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.archive_tables import archive_table
from db.base import FullAuditModel
from db.models.user import User
from db.types import LongText, ShortText, UtcDateTime, UUIDType


class TaskStatus(StrEnum):
    """How far a task has come."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"


DELETED = text("is_deleted")


class Task(FullAuditModel):
    """One task of a user."""

    __tablename__ = "tasks"
    __shown__ = ("title", "status", "external_key")

    title: Mapped[str] = mapped_column(ShortText(255), info={"translatable": True})
    description: Mapped[str | None] = mapped_column(LongText(), info={"translatable": True})
    status: Mapped[TaskStatus] = mapped_column(
        Enum(TaskStatus, native_enum=False, length=20, create_constraint=True, name="status"),
        default=TaskStatus.PENDING,
        server_default=TaskStatus.PENDING.value,
    )
    user_id: Mapped[UUID] = mapped_column(UUIDType(), ForeignKey(User.id, ondelete="CASCADE"))
    user: Mapped[User] = relationship(back_populates="tasks", lazy="raise")
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    external_key: Mapped[str | None] = mapped_column(ShortText(255), unique=True)
    """The task's name in the system it came from; makes imports idempotent."""
    import_run_id: Mapped[UUID | None] = mapped_column(UUIDType(), info={"protected": True})
    """The run that wrote this row last; without a foreign key, for the ledger is pruned and tasks stay."""

    __table_args__ = (
        Index(None, "user_id", "status", "id"),  # a user's tasks, of one status or all, page by page
        Index(None, "status", "id"),
        # What is old enough to be archived; on MySQL, which has no such index, living rows are in it, too.
        Index(None, "deleted_at", "id", postgresql_where=DELETED, sqlite_where=DELETED),
    )


TASKS_ARCHIVE = archive_table(cast("Table", Task.__table__))
