"""The statements behind ``db.repositories.run_groups`` on PostgreSQL: one round trip and one transaction for each.

Lists travel as arrays: a hundred parameters take longer to plan than the rows to find.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Integer, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from db.repositories.job_run import BornRun
from holdfast.states import RunState

_INSTANTS = ARRAY(TIMESTAMP(timezone=True))
_TEXTS = ARRAY(Text())
_IDENTITIES = (
    bindparam("job_ids", type_=_TEXTS),
    bindparam("queues", type_=_TEXTS),
    bindparam("enqueued", type_=_INSTANTS),
)

# Each run is looked up by its key, which OFFSET 0 and = ANY (ARRAY(...)) see to: they cannot be planned as joins of
# tables. Between two ANALYZEs the waiting runs may grow from none to a million: a plan that takes them for few reads
# all of them. A row that the ledger has is never tried to be entered: where somebody is changing it, that would wait.
_ADMIT = text(
    """
WITH born AS MATERIALIZED (
  SELECT born.*, known.id AS known_id
  FROM unnest(:ids, :kinds, :queues, :job_ids, :requests, :enqueued, :due) WITH ORDINALITY
       AS born (new_id, kind, queue, job_id, request, enqueued_at, due_at, place)
  LEFT JOIN LATERAL (
    SELECT id FROM job_runs
    WHERE (job_id, queue, enqueued_at) = (born.job_id, born.queue, born.enqueued_at)
    OFFSET 0
  ) AS known ON true
), free AS MATERIALIZED (
  SELECT born.place, known.id
  FROM born CROSS JOIN LATERAL (
    SELECT id, state, unique_key, cancel_requested_at, crashes FROM job_runs WHERE id = born.known_id
    OFFSET 0 FOR UPDATE SKIP LOCKED
  ) AS known
  WHERE born.known_id IS NOT NULL AND known.state = 'waiting' AND known.unique_key IS NULL
        AND known.cancel_requested_at IS NULL AND known.crashes < :suspect_after
), admitted AS (
  UPDATE job_runs
  SET state = 'running', reason = NULL, error = NULL, fence = fence + 1, worker_id = :worker_id,
      started_at = CURRENT_TIMESTAMP, dispatched_at = coalesce(dispatched_at, CURRENT_TIMESTAMP)
  WHERE id = ANY (ARRAY(SELECT id FROM free))
  RETURNING id, fence, attempts
), entered AS (
  INSERT INTO job_runs (id, kind, queue, job_id, request, state, enqueued_at, due_at, dispatched_at, fence, worker_id,
                        started_at)
  SELECT new_id, kind, queue, job_id, request::jsonb, 'running', enqueued_at, coalesce(due_at, enqueued_at),
         CURRENT_TIMESTAMP, 1, :worker_id, CURRENT_TIMESTAMP
  FROM born
  WHERE new_id IS NOT NULL AND known_id IS NULL
  ORDER BY job_id
  ON CONFLICT DO NOTHING
  RETURNING id
)
SELECT array_agg(place), array_agg(id), array_agg(fence), array_agg(attempts)
FROM (
  SELECT place, id, fence, attempts FROM admitted JOIN free USING (id)
  UNION ALL
  SELECT place, NULL, 1, 0 FROM entered JOIN born ON new_id = id
) AS done
"""
).bindparams(
    bindparam("ids", type_=ARRAY(Uuid())),
    bindparam("kinds", type_=_TEXTS),
    bindparam("requests", type_=_TEXTS),
    bindparam("due", type_=_INSTANTS),
    bindparam("worker_id", type_=Text()),
    bindparam("suspect_after", type_=Integer()),
    *_IDENTITIES,
)

_ENTER = text(
    """
INSERT INTO job_runs (id, kind, queue, job_id, request, state, unique_key, enqueued_at, due_at, dispatched_at, fence,
                      worker_id, started_at)
SELECT id, kind, queue, job_id, request::jsonb, :state, unique_key, enqueued_at, coalesce(due_at, enqueued_at),
       CURRENT_TIMESTAMP, :fence, :worker_id, CASE WHEN :fence > 0 THEN CURRENT_TIMESTAMP END
FROM unnest(:ids, :kinds, :queues, :job_ids, :requests, :unique_keys, :enqueued, :due)
     AS born (id, kind, queue, job_id, request, unique_key, enqueued_at, due_at)
ON CONFLICT DO NOTHING
RETURNING id
"""
).bindparams(
    bindparam("ids", type_=ARRAY(Uuid())),
    bindparam("kinds", type_=_TEXTS),
    bindparam("requests", type_=_TEXTS),
    bindparam("unique_keys", type_=_TEXTS),
    bindparam("due", type_=_INSTANTS),
    bindparam("state", type_=Text()),
    bindparam("fence", type_=Integer()),
    bindparam("worker_id", type_=Text()),
    *_IDENTITIES,
)

_END_SUCCEEDED = text(
    """
WITH held AS MATERIALIZED (
  SELECT told.id, told.report, told.place
  FROM unnest(:ids, :fences, :reports) WITH ORDINALITY AS told (id, fence, report, place)
  CROSS JOIN LATERAL (
    SELECT fence, state FROM job_runs WHERE id = told.id
    OFFSET 0 FOR UPDATE SKIP LOCKED
  ) AS known
  WHERE known.fence = told.fence AND known.state = 'running'
), ended AS (
  UPDATE job_runs
  SET state = 'succeeded', finished_at = CURRENT_TIMESTAMP, live_key = NULL,
      report = NULLIF((SELECT jsonb_object_agg(id, report::jsonb) FROM held) -> id::text, 'null')
  WHERE id = ANY (ARRAY(SELECT id FROM held))
  RETURNING id, fence, attempts, worker_id, started_at
), noted AS (
  INSERT INTO job_attempts (run_id, fence, attempt, worker_id, started_at, finished_at, outcome)
  SELECT id, fence, attempts + 1, worker_id, started_at, CURRENT_TIMESTAMP, 'succeeded' FROM ended
)
SELECT array_agg(place) FROM ended JOIN held USING (id)
"""
).bindparams(
    bindparam("ids", type_=ARRAY(Uuid())),
    bindparam("fences", type_=ARRAY(Integer())),
    bindparam("reports", type_=_TEXTS),
)


async def admit(
    connection: AsyncConnection,
    borns: Sequence[BornRun],
    new_ids: Mapping[int, UUID],
    worker_id: str,
    *,
    suspect_after: int,
) -> Mapping[int, tuple[UUID, int, int]]:
    """As ``run_groups.admit``."""
    values = {
        **_columns(borns),
        "ids": [new_ids.get(at) for at in range(len(borns))],
        "worker_id": worker_id,
        "suspect_after": suspect_after,
    }
    columns = (await connection.execute(_ADMIT, values)).one()
    rows = zip(*columns, strict=True) if columns[0] else ()
    found = {run_id or new_ids[place - 1]: (place - 1, fence, attempts) for place, run_id, fence, attempts in rows}
    # By their ids: a run that is in the group twice is admitted once.
    return {place: (run_id, fence, attempts) for run_id, (place, fence, attempts) in found.items()}


async def enter(connection: AsyncConnection, borns: Mapping[UUID, BornRun], worker_id: str | None) -> set[UUID]:
    """As ``run_groups.enter``."""
    members = list(borns.values())
    values = {
        **_columns(members),
        "ids": list(borns),
        "unique_keys": [born.unique_key for born in members],
        "state": RunState.WAITING.value if worker_id is None else RunState.RUNNING.value,
        "fence": 0 if worker_id is None else 1,
        "worker_id": worker_id,
    }
    return set((await connection.execute(_ENTER, values)).scalars())


async def end_succeeded(
    connection: AsyncConnection, ends: Sequence[tuple[UUID, int, dict[str, Any] | None]]
) -> set[int]:
    """As ``run_groups.end_succeeded``."""
    values = {
        "ids": [run_id for run_id, _, _ in ends],
        "fences": [fence for _, fence, _ in ends],
        "reports": [None if report is None else _json(report) for _, _, report in ends],
    }
    return {place - 1 for place in (await connection.execute(_END_SUCCEEDED, values)).scalar() or ()}


def _columns(borns: Sequence[BornRun]) -> dict[str, Any]:
    return {
        "kinds": [born.kind for born in borns],
        "requests": [_json(born.request) for born in borns],
        "due": [born.due_at for born in borns],
        "job_ids": [born.job_id for born in borns],
        "queues": [born.queue for born in borns],
        "enqueued": [born.enqueued_at for born in borns],
    }


def _json(value: dict[str, Any]) -> str:
    try:
        return to_json(value).decode()
    except ValueError:  # half a surrogate pair: it is for the database to refuse, and for one run only
        return json.dumps(value)
