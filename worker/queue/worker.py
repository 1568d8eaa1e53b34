"""arq's worker with its own constructor; it asks running jobs to stop before it cancels them."""

import asyncio
import signal
from collections.abc import Callable
from signal import Signals

from arq.worker import Worker as ArqWorker


class Worker(ArqWorker):
    """A worker of arq 0.28 that drains: on a signal it claims nothing more and calls ``on_drain``.

    Jobs then end at their next batch; what has not ended after ``job_completion_wait`` seconds is cancelled.
    """

    on_drain: Callable[[], None] = staticmethod(lambda: None)

    def handle_sig_wait_for_completion(self, signum: Signals) -> None:
        """Begin to drain; a second signal cancels at once."""
        if not self.allow_pick_jobs:
            self.handle_sig(signum)
            return
        self.on_drain()
        super().handle_sig_wait_for_completion(signum)

    async def close(self) -> None:
        """Cancel what still runs, call the shutdown hook, and close the connections to Redis."""
        if not self._handle_signals:
            self.handle_sig(signal.SIGUSR1)
        if not self._pool:
            return
        await asyncio.gather(*self.tasks.values())
        await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self.pool.aclose(close_connection_pool=True)
        self._pool = None
