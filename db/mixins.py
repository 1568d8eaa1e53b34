"""Columns that several models share."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import String, Uuid, false
from sqlalchemy.orm import Mapped, mapped_column

from db.types import UtcDateTime, json_column_type, utc_now
from holdfast.outbox import uuid7


def now() -> datetime:
    """Return the present instant, aware, to the microsecond."""
    return datetime.now(UTC)


class UUIDMixin:
    """A primary key that sorts by the time of its making."""

    id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True, default=uuid7, sort_order=-1)


class TimestampMixin:
    """When a row was made and last changed; the server's clock fills in where raw SQL leaves them out."""

    created_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=now, server_default=utc_now())
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime(), default=now, onupdate=now, server_default=utc_now())


class SoftDeleteMixin:
    """Rows that are marked as deleted before they are archived."""

    is_deleted: Mapped[bool] = mapped_column(default=False, server_default=false())
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime())


class AuditMixin:
    """Who made a row and who changed it last."""

    created_by: Mapped[str | None] = mapped_column(String(150))
    updated_by: Mapped[str | None] = mapped_column(String(150))


class MetadataMixin:
    """What does not deserve a column of its own."""

    metadata_json: Mapped[dict[str, Any] | None] = mapped_column(json_column_type())
    tags: Mapped[list[str] | None] = mapped_column(json_column_type())
