"""Enqueue inside your own database transaction: the commit is the enqueue, a rollback leaves no run.

Needs the extra ``[outbox]`` and a session on the database that the workers use; ``INSERT`` on ``job_runs`` is enough.
Workers look for new runs twice a second; ``ring_after_commit`` lets them start at once.
The ledger's table is defined here once, so that producers write exactly what the workers read; ``db`` maps it.
"""

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Dialect,
    Index,
    Insert,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    Uuid,
    bindparam,
    insert,
    literal_column,
    text,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeDecorator, TypeEngine

from holdfast.after_commit import ring_after_commit, ring_later
from holdfast.batches import request_payload
from holdfast.ids import uuid7
from holdfast.requests import JobRequest
from holdfast.states import RunState
from holdfast.wire import DEFAULT_QUEUE, MAX_PAYLOAD_BYTES, queue_key

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

__all__ = [  # `db` takes what it needs from here, uuid7 too
    "NAMING_CONVENTION",
    "UtcDateTime",
    "enqueue",
    "job_runs",
    "job_runs_history",
    "json_column_type",
    "metadata",
    "ring_after_commit",
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


EARLIEST_YEAR = 1000
"""Of MySQL's DATETIME; the other engines hold earlier ones, but the same program shall do the same on all."""
_OUT_OF_RANGE = f"is not of the years {EARLIEST_YEAR} to 9999 (UTC), which is what MySQL holds: store it as text"


class UtcDateTime(TypeDecorator[datetime]):
    """An instant, exact to the microsecond: takes aware datetimes only and gives aware UTC back.

    The years 1000 to 9999 are taken; any other is refused on every engine, because MySQL cannot hold it.

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
            ValueError: the datetime is naive, or not of the years 1000 to 9999.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone: pass an aware datetime, such as datetime.now(UTC)")
        try:
            in_utc = value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"{value.isoformat()} {_OUT_OF_RANGE}") from None
        if in_utc.year < EARLIEST_YEAR:
            raise ValueError(f"{value.isoformat()} {_OUT_OF_RANGE}")
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

LIVE = text("state IN ('waiting', 'running')")


def ledger_columns() -> list[Column[Any]]:
    """Return the columns that live and finished runs have in common."""
    return [
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
        # What the producer asked to be unique, and the run that stands for this one if it was taken.
        Column("unique_key", String(200)),
        Column("duplicate_of", Uuid()),
        Column("cancel_requested_at", UtcDateTime()),
    ]


job_runs = Table(
    "job_runs",
    metadata,
    *ledger_columns(),
    # The unique key while the run is live, else NULL: here SQL decides which of two runs is the duplicate.
    Column("live_key", String(255), unique=True),
    # The job id first: a queue has many runs, and a planner without statistics takes the first column for selective.
    UniqueConstraint("job_id", "queue", "enqueued_at"),
    # Only live runs are indexed (MySQL cannot): the others are on their way into the history.
    Index("ix_job_runs_live", "state", "queue", "id", postgresql_where=LIVE, sqlite_where=LIVE),
    postgresql_with={
        "fillfactor": "50",  # that a run is dispatched is noted in its own page, which spares every index an entry
        "autovacuum_vacuum_scale_factor": "0.02",
        "autovacuum_vacuum_threshold": "500",
        "autovacuum_vacuum_cost_delay": "0",
    },
)
"""One row a live run, and for a while a finished one: the outbox and the ledger. ``fence`` counts starts, ``attempts``
those that were charged, ``crashes`` those since the last committed batch that ended with their worker; ``cursor`` and
``counters`` are the job's."""

job_runs_history = Table(
    "job_runs_history",
    metadata,
    *ledger_columns(),
    Index(None, "job_id", "queue"),
    Index(None, "kind", "state", "id"),
    postgresql_partition_by="RANGE (id)",
)
"""Finished runs, by month on PostgreSQL: a UUIDv7 begins with its time."""


class _WrittenJson(TypeDecorator[str]):
    """JSON that is text already, for a column of ``json_column_type``."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(postgresql.JSONB() if dialect.name == "postgresql" else JSON())

    def bind_processor(self, dialect: Dialect) -> None:
        del dialect


@cache
def _insert(*, is_scheduled: bool, is_unique: bool) -> Insert:
    # Made once, and with as few parameters as can be: each costs the producer's transaction its while.
    values = {
        "id": bindparam("id", type_=Uuid()),
        "kind": bindparam("kind"),
        "queue": bindparam("queue"),
        "job_id": bindparam("job_id"),
        "request": bindparam("request", type_=_WrittenJson()),
        "state": literal_column(f"'{RunState.WAITING.value}'"),
        "enqueued_at": bindparam("now", type_=UtcDateTime()),
        "due_at": bindparam("at" if is_scheduled else "now", type_=UtcDateTime()),
    }
    if is_scheduled:
        values["reason"] = literal_column("'scheduled'")
    if is_unique:
        values["unique_key"] = bindparam("unique_key")
    return insert(job_runs).values(values).inline()


async def enqueue(  # noqa: PLR0913 - each is an option of its own
    session: "AsyncSession | AsyncConnection",
    request: JobRequest[Any],
    *,
    at: datetime | None = None,
    queue: str = DEFAULT_QUEUE,
    namespace: str = "",
    run_id: UUID | None = None,
    unique_key: str | None = None,
    max_payload_bytes: int = MAX_PAYLOAD_BYTES,
) -> UUID:
    """Write a run into the ledger, in the transaction of ``session``.

    Args:
        session: an async session or connection on the workers' database; it is not committed here.
        request: what is to be done.
        at: when it is due, an aware time; now if not given.
        queue: the queue's name. The ledger holds its whole key in Redis, namespace and all.
        namespace: the workers' ``HOLDFAST_NAMESPACE``, which keeps environments apart that share a Redis.
        run_id: the run's id, a UUID version 7 of now; a new one if not given. Workers look for young ids twice a
            second and for others once a minute.
        unique_key: while a run of this kind with the same key is live, this one ends as its duplicate. It is decided
            when the run is dispatched, so that a duplicate never aborts your transaction; at most 150 characters.
        max_payload_bytes: the largest request that is taken, in bytes of JSON; workers have a limit of their own.

    Returns:
        The run's id. Workers see the run once the transaction is committed.

    Raises:
        PayloadTooLarge: the request is too large.
        ValueError: the unique key is empty or too long, or the namespace is none.
        sqlalchemy.exc.IntegrityError: a run with this id exists.
    """
    # Made to be measured: what no worker would take from Redis is refused here.
    request_payload(request, 0, unique_key=unique_key, max_bytes=max_payload_bytes)
    run_id = run_id or uuid7()
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # what the wire can carry: it is part of the identity
    key = queue_key(queue, namespace)
    values: dict[str, Any] = {
        "id": run_id,
        "kind": request.kind,
        "queue": key,
        "job_id": str(run_id),
        "request": request.payload_json().decode(),
        "now": now,
    }
    if at is not None:
        values["at"] = at
    if unique_key is not None:
        values["unique_key"] = unique_key
    await session.execute(_insert(is_scheduled=at is not None, is_unique=unique_key is not None), values)
    ring_later(session, key)
    return run_id
