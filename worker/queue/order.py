"""Keeping the queues in order from outside the jobs: what dead workers left, what an outage hid, what is poisoned."""

import asyncio
import base64
import json
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from arq.constants import abort_jobs_ss

from worker.queue import scripts, upkeep
from worker.queue.claims import Claimed, LeaseTerms
from worker.queue.execution import now_ms
from worker.queue.leases import LeaseKeeper
from worker.queue.outage import Outage
from worker.queue.scripts import QueueKeys

if TYPE_CHECKING:
    from worker.queue.worker import Worker

logger = logging.getLogger("arq.worker")

QUARANTINE_ENTRIES = 10_000
PARK_PAUSE_S = 0.25


class Order:
    """The upkeep of one worker's queues.

    Args:
        worker: whose settings count.
        queues: the keys of each queue.
        terms: token and length of the leases.
        keeper: knows what is leased here.
        outage: what is known of Redis.
    """

    def __init__(
        self, worker: "Worker", queues: Sequence[QueueKeys], *, terms: LeaseTerms, keeper: LeaseKeeper, outage: Outage
    ) -> None:
        redis: Any = worker.pool
        self._worker = worker
        self._queues = queues
        self._terms = terms
        self._keeper = keeper
        self._outage = outage
        self._reap = redis.register_script(upkeep.REAP)
        self._recover = redis.register_script(upkeep.RECOVER)
        self._park = redis.register_script(upkeep.PARK)
        self._reap_at = 0.0
        self._blind_since: float | None = None

    def stumbled(self, error: BaseException) -> None:
        """Note that a call of the main loop failed."""
        if "WRONGTYPE" in str(error):
            self._reap_at = 0.0  # a key is not what it should be: the reaper puts it out of the way
        elif self._blind_since is None:
            self._blind_since = self._outage.failed_call_began

    async def keep(self) -> None:
        """Return entries of dead workers to their place, a few times a lease; after an outage first of all our own.

        Raises:
            redis.exceptions.RedisError, OSError, TimeoutError: Redis did not do it.
        """
        blind_since = self._blind_since
        now = asyncio.get_running_loop().time()
        if blind_since is not None:
            # Who could not renew its leases may live: they are valid once more before anybody looks for dead workers.
            outage_s = time.monotonic() - blind_since
            await self.recover(self._terms.lease_ms if outage_s > self._worker.lease_s / 3 else 0)
        elif now < self._reap_at:
            return
        for keys in self._queues:
            async with self._outage.guarded("reap"):
                damaged, reaped = await self._reap(
                    keys=[*keys.all(), keys.quarantine, abort_jobs_ss, keys.intake, keys.bell],
                    args=[scripts.MAX_ENTRIES, self._terms.token],
                )
            for key in damaged:
                logger.warning("%s had a wrong type, it is now %s:damaged", key.decode(), key.decode())
            if reaped:
                logger.warning("%d runs of dead workers are back in %s", len(reaped), keys.queue)
        self._reap_at = now + min(self._worker.lease_s / 2, self._worker.longest_idle_s)
        if blind_since is not None:  # only now: recovering may write nothing, and so tell nothing of a read-only Redis
            self._blind_since = None

    async def recover(self, amnesty_ms: int) -> None:
        """Give back what was claimed by calls whose answer never came.

        Args:
            amnesty_ms: for so long leases that ran out are valid again; 0: they are not.

        Raises:
            redis.exceptions.RedisError, OSError, TimeoutError: Redis did not do it.
        """
        for keys in self._queues:
            async with self._outage.guarded("recover"):
                back, spared = await self._recover(
                    keys=keys.all(), args=[self._terms.token, amnesty_ms, *self._keeper.held_ids(keys)]
                )
            if back or spared:
                logger.info("%s: %d unheard claims went back, %d leases are valid again", keys.queue, back, spared)

    async def quarantine(self, claimed: Claimed) -> None:
        """Write a poisoned entry into the quarantine, however long it takes: its lease is renewed meanwhile."""
        entry = _entry(claimed)
        while True:
            try:
                async with self._outage.guarded("park"):
                    parked = await self._park(
                        keys=[claimed.keys.quarantine], args=[claimed.raw_id, entry, QUARANTINE_ENTRIES]
                    )
            except self._outage.errors as error:
                self.stumbled(error)
                await asyncio.sleep(PARK_PAUSE_S)
                continue
            if not parked:
                logger.error("%s is full, not parked: %s %s", claimed.keys.quarantine, claimed.job_id, entry)
            return


def _entry(claimed: Claimed) -> str:
    """Return what the quarantine keeps of a poisoned entry, as JSON."""
    kept = (claimed.payload or b"")[:4096]
    return json.dumps(
        {
            "reason": claimed.poison,
            "payload_base64": base64.b64encode(kept).decode(),
            "payload_bytes": claimed.payload_bytes,
            "at_ms": now_ms(),
        }
    )
