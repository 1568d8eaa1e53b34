"""The upkeep of the history: its partitions are made ahead, finished runs move there, and old ones are deleted."""

from datetime import datetime, timedelta

from db.connection import get_async_session, get_reading_session
from db.in_time import in_time
from db.repositories import history, job_run
from holdfast.states import RunState
from worker.clock import DatabaseClock
from worker.newcomers import HISTORY_AFTER
from worker.settings import Settings

MOVED_AT_ONCE = 500
REJECTS_AT_ONCE = 5_000


class HistoryUpkeep:
    """What is done about finished runs, again and again.

    Args:
        settings: for how long which runs are kept.
        clock: the database's.
    """

    def __init__(self, settings: Settings, clock: DatabaseClock) -> None:
        self._settings = settings
        self._clock = clock

    async def make_partitions(self) -> None:
        """Make those of the next two months, where the history has any."""
        async with in_time(), get_async_session(single=True) as session:
            await history.make_partitions(session, now=await job_run.database_now(session))

    async def move_to_history(self) -> None:
        """Move all runs that ended a while ago."""
        now = await self._clock.now()
        while True:
            async with in_time(), get_async_session() as session:
                moved = await history.move_finished(session, finished_before=now - HISTORY_AFTER, limit=MOVED_AT_ONCE)
            if moved < MOVED_AT_ONCE:
                return

    async def prune_history(self) -> None:
        """Delete the runs that are older than their kind and state are kept."""
        settings, now = self._settings, await self._clock.now()
        days = {
            RunState.SUCCEEDED: settings.history_keep_succeeded_days,
            RunState.CANCELLED: settings.history_keep_succeeded_days,
            RunState.FAILED: settings.history_keep_failed_days,
            RunState.QUARANTINED: settings.history_keep_failed_days,
        }
        async with in_time(), get_reading_session() as session:
            kinds = await history.kinds_in_history(session)
        for kind in kinds:
            for state, general in days.items():
                kept = settings.history_keep_days.get(f"{kind}.{state.value}", general)
                await self._prune(kind, state, now - timedelta(days=kept))
        async with in_time(), get_async_session(single=True) as session:
            await history.drop_empty_partitions(session, before=now - timedelta(days=min(days.values())))

    async def _prune(self, kind: str, state: RunState, older_than: datetime) -> None:
        while True:
            async with in_time(), get_reading_session() as session:
                run_ids = await history.prunable(
                    session, kind=kind, state=state.value, older_than=older_than, limit=MOVED_AT_ONCE
                )
            if not run_ids:
                return
            rejects = REJECTS_AT_ONCE
            while rejects == REJECTS_AT_ONCE:
                async with in_time(), get_async_session() as session:
                    rejects = await history.delete_rejects(session, run_ids, limit=REJECTS_AT_ONCE)
            async with in_time(), get_async_session() as session:
                await history.delete_runs(session, run_ids)
