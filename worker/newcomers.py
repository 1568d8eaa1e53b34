"""Runs that Redis tells of: whether the ledger may have seen them before, and which id they get."""

from collections.abc import Callable
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

from db.repositories.job_run import BornRun, as_uuid7
from holdfast.ids import uuid7
from holdfast.wire import MAX_RUN_ID

HISTORY_AFTER = timedelta(minutes=10)
"""Finished runs stay in the ledger for so long; only a younger entry may be new without a look into the history."""
_OLD_AFTER = HISTORY_AFTER / 2


def is_storable_id(job_id: str) -> bool:
    """Whether every engine can keep this id as it is."""
    return len(job_id) <= MAX_RUN_ID and "\x00" not in job_id


def is_old(instant: datetime, now: datetime) -> bool:
    """Whether a run of this instant may be in the history already.

    Args:
        instant: by its producer's clock; half of ``HISTORY_AFTER`` is left for one that is wrong.
        now: by the database's clock, as the history is.
    """
    return instant < now - _OLD_AFTER


def may_be_in_history(now: datetime) -> Callable[[BornRun], bool]:
    """Return what tells of a run whether it, or an earlier one of its id, may have left the ledger already.

    Args:
        now: as ``is_old``.
    """
    latest = now - _OLD_AFTER
    first_id = ceil(latest.timestamp() * 1000) << 80

    def may_be(born: BornRun) -> bool:
        if born.enqueued_at < latest:
            return True
        run_id = as_uuid7(born.job_id)
        return run_id is not None and run_id.int < first_id

    return may_be


def free_id(born: BornRun, taken: set[UUID]) -> UUID:
    """Return the id that a new run gets: the queue's if that is a UUIDv7 that is still free; adds it to ``taken``."""
    run_id = as_uuid7(born.job_id)
    if run_id is None or run_id in taken:
        run_id = uuid7()
    taken.add(run_id)
    return run_id
