"""The pool of connections, and the figures that tell whether it is large enough."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry


@dataclass(frozen=True, slots=True)
class PoolFigures:
    """What a pool does now, and how often somebody waited for it since it was opened."""

    size: int
    """Connections that it keeps."""
    max_overflow: int
    """Connections that it opens beyond these."""
    checked_out: int
    """Connections in use."""
    idle: int
    """Open connections that nobody uses."""
    waits: int
    """How often somebody came while all were in use."""
    waited_s: float
    """Seconds that they waited, all together."""
    timeouts: int
    """How often the wait was given up (``DATABASE_POOL_TIMEOUT``)."""


class CountingPool(AsyncAdaptedQueuePool):
    """A queue pool that counts who had to wait."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waits = 0
        self._waited_s = 0.0
        self._timeouts = 0

    def _do_get(self) -> ConnectionPoolEntry:
        if self.checkedin() > 0 or self.checkedout() < self.size() + self._max_overflow:
            return super()._do_get()
        self._waits += 1
        began = time.monotonic()
        try:
            return super()._do_get()
        except PoolTimeoutError:
            self._timeouts += 1
            raise
        finally:
            self._waited_s += time.monotonic() - began

    def figures(self) -> PoolFigures:
        """Return the figures as they are now."""
        return PoolFigures(
            size=self.size(),
            max_overflow=self._max_overflow,
            checked_out=self.checkedout(),
            idle=self.checkedin(),
            waits=self._waits,
            waited_s=round(self._waited_s, 6),
            timeouts=self._timeouts,
        )
