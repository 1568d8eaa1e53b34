"""The ledger's tables and the column types that they need (extra ``[outbox]``); ``holdfast.outbox`` hands them out."""

from datetime import UTC, datetime
from typing import Any

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
    text,
)
from sqlalchemy.dialects import mysql, postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction
from sqlalchemy.types import TypeDecorator, TypeEngine

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
