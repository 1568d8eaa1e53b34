"""arq's worker with its own constructor; it asks running jobs to stop before it cancels them."""

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from signal import Signals

from arq.worker import Worker as ArqWorker
from redis.exceptions import RedisError

from holdfast import wire

logger = logging.getLogger("arq.worker")


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

    def handle_sig(self, signum: Signals) -> None:
        """Cancel at once: a second signal, or the first one where there is no time of grace."""
        self.allow_pick_jobs = False
        self.on_drain()
        super().handle_sig(signum)

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start entries; none that this worker is performing, and none whose id arq could not read and would die of."""
        readable = []
        for raw_id in job_ids:
            try:
                job_id = raw_id.decode()
            except UnicodeDecodeError:
                await self.pool.zrem(self.queue_name, raw_id)
                logger.warning("an entry of %s was removed, its id is not UTF-8: %r", self.queue_name, raw_id[:80])
                continue
            if job_id not in self.tasks or self.tasks[job_id].done():
                readable.append(raw_id)
        await super().start_jobs(readable)

    async def finish_job(  # noqa: PLR0913, PLR0917 - arq's own signature
        self,
        job_id: str,
        finish: bool,
        result_data: bytes | None,
        result_timeout_s: float | None,
        keep_result_forever: bool,
        incr_score: int | None,
        keep_in_progress: float | None,
    ) -> None:
        """Tell Redis how an attempt ended; an entry that is gone is not made again.

        arq's own ``ZINCRBY`` would make one without a payload when another worker has ended the run meanwhile, and the
        next worker would write "job expired" over its result.
        """
        if finish or keep_in_progress is not None:
            await super().finish_job(
                job_id, finish, result_data, result_timeout_s, keep_result_forever, incr_score, keep_in_progress
            )
            return
        async with self.pool.pipeline(transaction=True) as pipe:
            if incr_score:
                pipe.zadd(self.queue_name, {job_id: incr_score}, xx=True, incr=True)
            pipe.delete(wire.IN_PROGRESS_KEY + job_id)
            await pipe.execute()

    async def close(self) -> None:
        """Cancel what still runs, call the shutdown hook, and close the connections to Redis."""
        if not self._handle_signals:
            self.handle_sig(signal.SIGUSR1)
        if not self._pool:
            return
        await asyncio.gather(*self.tasks.values())
        with suppress(RedisError, OSError):  # the hook below must be called even where Redis is gone
            await self.pool.delete(self.health_check_key)
        if self.on_shutdown:
            await self.on_shutdown(self.ctx)
        await self.pool.aclose(close_connection_pool=True)
        self._pool = None
