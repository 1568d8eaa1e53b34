"""Enqueue inside your own database transaction: the commit is the enqueue, a rollback leaves no run.

Needs the extra ``[outbox]`` and a session on the database that the workers use; ``INSERT`` on ``job_runs`` is enough.
The ledger's table is defined here once, so that producers write exactly what the workers read; ``db`` maps it.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    Uuid,
    insert,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeDecorator, TypeEngine

from holdfast.ids import uuid7
from holdfast.requests import JobRequest
from holdfast.states import RunState
from holdfast.wire import DEFAULT_QUEUE

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

__all__ = [  # `db` takes what it needs from here, uuid7 too
    "NAMING_CONVENTION",
    "UtcDateTime",
    "enqueue",
    "job_runs",
    "json_column_type",
    "metadata",
    "utc_now",
    "uuid7",
]

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""How every constraint and index is named, so that migrations and error messages can rely on it."""


class UtcDateTime(TypeDecorator[datetime]):
    """An instant, exact to the microsecond: takes aware datetimes only and gives aware UTC back.

    SQLAlchemy's ``DateTime(timezone=True)`` stores the wrong instant on MariaDB and SQLite, which have no such type.
    """

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return ``timestamptz`` on PostgreSQL, ``DATETIME(6)`` on MySQL and MariaDB, text on SQLite."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        if dialect.name in {"mysql", "mariadb"}:
            return dialect.type_descriptor(mysql.DATETIME(fsp=6))
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert to UTC.

        Raises:
            ValueError: the datetime is naive.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone: pass an aware datetime, such as datetime.now(UTC)")
        in_utc = value.astimezone(UTC)
        return in_utc if dialect.name == "postgresql" else in_utc.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the instant back in UTC."""
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class utc_now(GenericFunction[datetime]):  # noqa: N801 - it reads as the SQL function that it is
    """The database's clock, in the form that ``UtcDateTime`` stores."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(utc_now)
def _utc_now_default(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:
    del element, compiler, kw
    return "CURRENT_TIMESTAMP"


@compiles(utc_now, "mysql", "mariadb")
def _utc_now_mysql(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:
    del element, compiler, kw
    return "(UTC_TIMESTAMP(6))"  # in parentheses it may be a default, too


@compiles(utc_now, "sqlite")
def _utc_now_sqlite(element: utc_now, compiler: SQLCompiler, **kw: Any) -> str:
    del element, compiler, kw
    # Six digits, as SQLAlchemy writes them: the column is text and is compared as text.
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


def json_column_type() -> JSON:
    """Return the JSON type: ``jsonb`` on PostgreSQL, ``JSON`` elsewhere; Python's None is SQL's NULL."""
    return JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


metadata = MetaData(naming_convention=NAMING_CONVENTION)

job_runs = Table(
    "job_runs",
    metadata,
    Column("id", Uuid(), primary_key=True),
    Column("kind", String(100), nullable=False),
    Column("queue", String(100), nullable=False),
    # arq's id; (queue, job_id, enqueued_at) tells runs apart because arq's users reuse ids.
    Column("job_id", String(255), nullable=False),
    Column("request", json_column_type(), nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", String(30)),
    Column("enqueued_at", UtcDateTime(), nullable=False),
    Column("due_at", UtcDateTime(), nullable=False),
    # When the run was last put into Redis by a worker; NULL: not yet, or to be put there again.
    Column("dispatched_at", UtcDateTime()),
    Column("fence", Integer(), nullable=False, server_default="0"),
    Column("attempts", Integer(), nullable=False, server_default="0"),
    Column("crashes", Integer(), nullable=False, server_default="0"),
    Column("worker_id", String(100)),
    Column("started_at", UtcDateTime()),
    Column("finished_at", UtcDateTime()),
    Column("cursor", json_column_type()),
    Column("counters", json_column_type()),
    Column("report", json_column_type()),
    Column("error", json_column_type()),
    UniqueConstraint("queue", "job_id", "enqueued_at"),
    Index(None, "state", "due_at"),
    Index(None, "kind", "enqueued_at"),
)
"""One row a run: the outbox and the ledger. ``fence`` counts starts, ``attempts`` those that were charged, ``crashes``
those that ended with their worker; ``cursor`` and ``counters`` belong to the job."""


async def enqueue(
    session: "AsyncSession | AsyncConnection",
    request: JobRequest[Any],
    *,
    at: datetime | None = None,
    queue: str = DEFAULT_QUEUE,
    run_id: UUID | None = None,
) -> UUID:
    """Write a run into the ledger, in the transaction of ``session``.

    Args:
        session: an async session or connection on the workers' database; it is not committed here.
        request: what is to be done.
        at: when it is due, an aware time; now if not given.
        queue: the queue's key in Redis.
        run_id: the run's id, a UUID version 7; a new one if not given.

    Returns:
        The run's id. Workers see the run once the transaction is committed.

    Raises:
        sqlalchemy.exc.IntegrityError: a run with this id exists.
    """
    run_id = run_id or uuid7()
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # what the wire can carry: it is part of the identity
    await session.execute(
        insert(job_runs).values(
            id=run_id,
            kind=request.kind,
            queue=queue,
            job_id=str(run_id),
            request=request.payload(),
            state=RunState.WAITING.value,
            reason=None if at is None else "scheduled",
            enqueued_at=now,
            due_at=at or now,
        )
    )
    return run_id
