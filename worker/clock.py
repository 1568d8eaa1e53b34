"""The database's clock, without asking for the time before each look."""

import time
from datetime import UTC, datetime, timedelta

from db.connection import get_reading_session
from db.in_time import in_time
from db.repositories import job_run

ASKED_EVERY_S = 60.0


class DatabaseClock:
    """Asks the database once a minute and reckons in between; for what may be off by a little."""

    def __init__(self) -> None:
        self._told = datetime.min.replace(tzinfo=UTC)
        self._told_at = float("-inf")

    async def now(self) -> datetime:
        """Return about what the database's clock shows."""
        if time.monotonic() - self._told_at > ASKED_EVERY_S:
            async with in_time(), get_reading_session() as session:
                self._told = await job_run.database_now(session)
            self._told_at = time.monotonic()
        return self._told + timedelta(seconds=time.monotonic() - self._told_at)
