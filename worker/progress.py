"""Telling producers and operators how far a run has come."""

import time
from contextlib import suppress
from typing import Any

from redis.exceptions import RedisError

from holdfast import wire
from holdfast.progress import Progress

INTERVAL_S = 0.2
KEPT_MS = 24 * 3600 * 1000


class ProgressPublisher:
    """Writes a run's progress to Redis, at most every ``INTERVAL_S`` seconds and always at the end."""

    def __init__(self, redis: Any, job_id: str) -> None:
        self._redis = redis
        self._key = wire.PROGRESS_KEY + job_id
        self._next = 0.0

    async def __call__(self, progress: Progress) -> None:
        """Publish; a Redis that is away costs the run nothing."""
        now = time.monotonic()
        if now < self._next and progress.done != progress.total:
            return
        self._next = now + INTERVAL_S
        with suppress(RedisError, OSError):
            await self._redis.set(self._key, progress.model_dump_json(), px=KEPT_MS)
