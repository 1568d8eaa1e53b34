"""Many rows in the ledger, written at once."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bench.queue.arena import QUEUE
from db.urls import normalise_url

# The ids are UUIDs of version 7, as the library makes them: a time, then what tells runs of one moment apart. Up to a
# hundred share a millisecond.
_IDS = """
SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint - (:count - number) / 100), 12, '0')
        || '7' || substr(md5(number::text), 1, 3) || '8' || substr(md5(number::text), 5, 15))::uuid AS id
FROM generate_series(1, :count) AS number
"""

_INSERT = f"""
INSERT INTO job_runs (id, kind, queue, job_id, request, state, enqueued_at, due_at, dispatched_at)
SELECT id, 'noop_ledgered', :queue, id::text, '{{"x": 0.0}}', 'waiting', now(),
       now() + make_interval(secs => :due_in_s), CASE WHEN :dispatched THEN now() END
FROM ({_IDS}) AS ids
"""  # noqa: S608 - our own text


async def fill_ledger(database_url: str, count: int, *, due_in_s: float = 0.0, dispatched: bool = True) -> None:
    """Write waiting runs as the outbox would, all in one statement.

    Args:
        database_url: PostgreSQL.
        count: how many.
        due_in_s: when they are due, in seconds from now.
        dispatched: say that Redis has them already.
    """
    engine = create_async_engine(normalise_url(database_url))
    values = {"queue": QUEUE, "count": count, "due_in_s": due_in_s, "dispatched": dispatched}
    async with engine.begin() as connection:
        await connection.execute(text(_INSERT), values)
        await connection.execute(text("ANALYZE job_runs"))  # as autovacuum does within a minute of so many rows
    await engine.dispose()
