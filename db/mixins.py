"""Columns that several models share."""

from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import Executable, event, false, not_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, mapped_column, with_loader_criteria

from db.types import ShortText, SmartJSON, UtcDateTime, UUIDType, utc_now, uuid7

INCLUDE_DELETED = "include_deleted"
"""Execution option of a select that wants soft-deleted rows, too: ``execution_options(include_deleted=True)``."""

SelectT = TypeVar("SelectT", bound=Executable)

_actor: ContextVar[str | None] = ContextVar("holdfast_actor", default=None)


def now() -> datetime:
    """Return the present instant, aware, to the microsecond."""
    return datetime.now(UTC)


def current_actor() -> str | None:
    """Return who acts in this context, as ``acting_as`` has set it."""
    return _actor.get()


class acting_as:  # noqa: N801 - a context manager, and on the path of each run: no generator
    """Name who acts in this context (task, thread): ``AuditMixin`` writes it into ``created_by`` and ``updated_by``.

    Args:
        name: at most 150 characters; None: nobody that is known.
    """

    __slots__ = ("_name", "_token")

    def __init__(self, name: str | None) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._token = _actor.set(self._name)

    def __exit__(self, *_: object) -> None:
        _actor.reset(self._token)


class UUIDMixin:
    """A primary key that sorts by the time of its making."""

    id: Mapped[UUID] = mapped_column(UUIDType(), primary_key=True, default=uuid7, sort_order=-1)


def uuid7_text() -> str:
    """Return a new UUID version 7 as text of 36 characters."""
    return str(uuid7())


class UUIDStringMixin:
    """As ``UUIDMixin``, but the key is text: for tables that others read who know no UUIDs."""

    id: Mapped[str] = mapped_column(ShortText(36), primary_key=True, default=uuid7_text, sort_order=-1)


class UUIDFieldMixin:
    """A UUID beside a primary key of another kind: what the outside is told, when the key shall not be guessed."""

    uuid: Mapped[UUID] = mapped_column(UUIDType(), unique=True, default=uuid7, info={"protected": True})


class TimestampMixin:
    """When a row was made and last changed; the server's clock fills in where COPY and raw SQL leave them out.

    ``updated_at`` is set by every UPDATE that does not name it: of the ORM, in bulk, and of Core. Raw SQL must name it.
    """

    created_at: Mapped[datetime] = mapped_column(
        UtcDateTime(), default=now, server_default=utc_now(), info={"protected": True}
    )
    updated_at: Mapped[datetime] = mapped_column(
        UtcDateTime(), default=now, onupdate=now, server_default=utc_now(), info={"protected": True}
    )


class UUIDTimestampMixin(UUIDMixin, TimestampMixin):
    """``UUIDMixin`` and ``TimestampMixin``."""


class UUIDStringTimestampMixin(UUIDStringMixin, TimestampMixin):
    """``UUIDStringMixin`` and ``TimestampMixin``."""


class SoftDeleteMixin:
    """Rows that are marked as deleted before they are archived.

    Every ORM select leaves them out, relationships included, unless it has the execution option ``include_deleted``.
    Core statements on ``Model.__table__`` see all rows. A unique key counts deleted rows, too.
    """

    is_deleted: Mapped[bool] = mapped_column(default=False, server_default=false(), info={"protected": True})
    deleted_at: Mapped[datetime | None] = mapped_column(UtcDateTime(), info={"protected": True})

    async def soft_delete(self, session: AsyncSession) -> None:
        """Mark the row as deleted, and flush; one that is deleted already keeps its time."""
        if not self.is_deleted:
            self.is_deleted, self.deleted_at = True, now()
            await session.flush()

    async def restore(self, session: AsyncSession) -> None:
        """Take the mark back, and flush."""
        self.is_deleted, self.deleted_at = False, None
        await session.flush()


class AuditMixin:
    """Who made a row and who changed it last, as ``acting_as`` names them: in a run its kind, if the job names nobody.

    NULL: nobody that is known.
    """

    created_by: Mapped[str | None] = mapped_column(ShortText(150), default=current_actor, info={"protected": True})
    updated_by: Mapped[str | None] = mapped_column(ShortText(150), onupdate=current_actor, info={"protected": True})


class MetadataMixin:
    """What does not deserve a column of its own."""

    metadata_json: Mapped[dict[str, Any] | None] = mapped_column(SmartJSON())
    tags: Mapped[list[str] | None] = mapped_column(SmartJSON())


_WITHOUT_DELETED = with_loader_criteria(SoftDeleteMixin, lambda model: not_(model.is_deleted), include_aliases=True)
_LEFT_OUT = "holdfast_deleted_left_out"


def without_deleted(statement: SelectT) -> SelectT:
    """Return the select with the criterion that every session would add: for one that is built once and run often."""
    return statement.options(_WITHOUT_DELETED).execution_options(**{_LEFT_OUT: True})


@event.listens_for(Session, "do_orm_execute")
def _leave_out_deleted(state: ORMExecuteState) -> None:
    if not (state.is_orm_statement and state.is_select):
        return
    # A column load is of an object that is there: refreshing a deleted one must not fail.
    if state.is_column_load or state.execution_options.get(INCLUDE_DELETED, False):
        return
    if _LEFT_OUT not in state.execution_options:  # an eager load inherits the options and the criterion
        state.statement = state.statement.options(_WITHOUT_DELETED)
        state.update_execution_options(**{_LEFT_OUT: True})
