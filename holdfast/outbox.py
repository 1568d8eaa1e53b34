"""Enqueue inside your own database transaction: the commit is the enqueue, a rollback leaves no run.

Needs the extra ``[outbox]`` and a session on the database that the workers use; ``INSERT`` on ``job_runs`` is enough.
Workers look for new runs twice a second; ``ring_after_commit`` lets them start at once.
The ledger's table is defined once, in ``holdfast.ledger_tables``: producers write what workers read; ``db`` maps it.
"""

from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import JSON, Dialect, Insert, Uuid, bindparam, insert, literal_column
from sqlalchemy.dialects import postgresql
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

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

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
        max_payload_bytes: the largest request that is taken, in bytes of JSON; more than the workers'
            ``MAX_PAYLOAD_BYTES`` fails there.

    Returns:
        The run's id. Workers see the run once the transaction is committed.

    Raises:
        PayloadTooLarge: the request is too large.
        ValueError: the unique key is empty or too long, a text cannot be stored, or the namespace is none.
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
    await session.execute(_insert(is_scheduled=at is not None, is_unique=unique_key is not None), values)
    ring_later(session, key)
    return run_id
