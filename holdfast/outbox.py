"""Enqueue inside your own database transaction: the commit is the enqueue, a rollback leaves no run.

Needs the extra ``[outbox]`` and a session on the database that the workers use; ``INSERT`` on ``job_runs`` is enough.
Workers look for new runs twice a second; ``ring_after_commit`` lets them start at once.
The ledger's table is defined once, in ``holdfast.ledger_tables``: producers write what workers read; ``db`` maps it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import JSON, Connection, Dialect, Insert, Uuid, bindparam, insert, literal_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeDecorator, TypeEngine

from holdfast.after_commit import ring_after_commit, ring_later
from holdfast.batches import request_payload
from holdfast.ids import uuid7
from holdfast.ledger_tables import (
    EARLIEST_YEAR,
    LIVE,
    NAMING_CONVENTION,
    UtcDateTime,
    job_runs,
    job_runs_history,
    json_column_type,
    metadata,
    utc_now,
)
from holdfast.requests import JobRequest
from holdfast.states import RunState
from holdfast.wire import DEFAULT_QUEUE, MAX_PAYLOAD_BYTES, queue_key

__all__ = [  # `db` takes what it needs from here, uuid7 too
    "EARLIEST_YEAR",
    "LIVE",
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
    session: AsyncSession | AsyncConnection | async_scoped_session[Any],
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
        session: an async session (one of a task's own, too) or connection on the workers' database; it is not committed
            here.
        request: what is to be done.
        at: when it is due, an aware time; now if not given.
        queue: the queue's name. The ledger holds its whole key in Redis, namespace and all.
        namespace: the workers' ``HOLDFAST_NAMESPACE``, which keeps environments apart that share a Redis.
        run_id: the run's id, a UUID version 7 of now; a new one if not given. Workers look for young ids twice a
            second and for others once a minute.
        unique_key: while a run of this kind with the same key is live, this one ends as its duplicate. It is decided
            when the run is dispatched, so that a duplicate never aborts your transaction; at most 150 characters.
        max_payload_bytes: the largest request that is taken, in bytes of JSON; more than the workers'
            ``MAX_PAYLOAD_BYTES`` fails there.

    Returns:
        The run's id. Workers see the run once the transaction is committed.

    Raises:
        PayloadTooLarge: the request is too large.
        ValueError: the unique key is empty or too long, a text cannot be stored, or the namespace is none.
        sqlalchemy.exc.StatementError: ``at`` is naive, or its year is none of 1000 to 9999.
        sqlalchemy.exc.IntegrityError: a run with this id exists.
    """
    run_id = run_id or uuid7()
    now = datetime.now(UTC)
    now = now.replace(microsecond=now.microsecond // 1000 * 1000)  # what the wire can carry: it is part of the identity
    # Made to be measured: what no worker would take from Redis is refused here.
    request_payload(request, round(now.timestamp() * 1000), unique_key=unique_key, max_bytes=max_payload_bytes)
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
    own: AsyncSession | AsyncConnection = session() if isinstance(session, async_scoped_session) else session
    statement = _insert(is_scheduled=at is not None, is_unique=unique_key is not None)
    if isinstance(own, AsyncConnection):
        await own.run_sync(_execute, statement, values)
    else:
        await own.run_sync(_execute_in_session, statement, values)
    ring_later(own, key)
    return run_id


def _execute_in_session(session: Session, statement: Insert, values: dict[str, Any]) -> None:
    # Of several databases that a session may be of, the one that it would insert into.
    _execute(session.connection(bind_arguments={"clause": statement}), statement, values)


def _execute(connection: Connection, statement: Insert, values: dict[str, Any]) -> None:
    heard = connection.dispatch
    if connection.get_execution_options().get("schema_translate_map") or heard.before_execute or heard.after_execute:
        connection.execute(statement, values)
        return
    written = _in_drivers_words(statement, connection.dialect)
    connection.exec_driver_sql(written.sql, written.parameters(values))


@dataclass(frozen=True, slots=True)
class _Written:
    """A statement as its driver takes it: to have SQLAlchemy look it up each time costs the transaction its while."""

    sql: str
    processors: dict[str, Callable[[Any], Any] | None]
    """What makes each parameter's value ready for the driver."""
    places: tuple[str, ...] | None
    """The parameters in the order of the text, where the driver goes by it and not by their names."""

    def parameters(self, values: dict[str, Any]) -> Any:
        try:
            ready = {name: made(values[name]) if made else values[name] for name, made in self.processors.items()}
        except Exception as error:
            cause = f"({type(error).__module__}.{type(error).__name__}) {error}"
            raise StatementError(cause, self.sql, None, error, hide_parameters=True) from error
        return ready if self.places is None else tuple([ready[name] for name in self.places])


@lru_cache(maxsize=256)
def _in_drivers_words(statement: Insert, dialect: Dialect) -> _Written:
    compiled: Any = statement.compile(dialect=dialect)
    processors = {
        name: bind.type.dialect_impl(dialect).bind_processor(dialect) for name, bind in compiled.binds.items()
    }
    return _Written(str(compiled), processors, tuple(compiled.positiontup) if compiled.positional else None)
