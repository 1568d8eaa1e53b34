"""Renewing leases from a thread with a connection of its own: a job that blocks the event loop keeps its lease."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import redis
from redis.exceptions import RedisError

from worker.queue import scripts, upkeep
from worker.queue.claims import Claimed, LeaseTerms

logger = logging.getLogger("holdfast.queue")

RENEWALS_A_LEASE = 3
RETRIES_A_LEASE = 20
LONGEST_RETRY_PAUSE_S = 0.25
LONGEST_CALL_S = 5.0
STOP_PATIENCE_S = 1.0
HELD = 1
UNHELD = 2


class LeaseKeeper:
    """Keeps the leases of this worker's runs, whatever the event loop does.

    Args:
        connect: makes a synchronous client whose answers may take so many seconds.
        terms: token and length of the leases.
        on_lost: called in the event loop with a claim that another worker has now.
        on_reclaimed: called in the event loop with a claim that Redis had lost and that was made again.
        name_of: called in the thread, tells which job a task is.
    """

    def __init__(
        self,
        connect: Callable[[float], "redis.Redis"],
        terms: LeaseTerms,
        *,
        on_lost: Callable[[Claimed], None],
        on_reclaimed: Callable[[Claimed], None],
        name_of: Callable[[asyncio.Task[Any]], str],
    ) -> None:
        self._connect = connect
        self._terms = terms
        self._on_lost = on_lost
        self._on_reclaimed = on_reclaimed
        self._name_of = name_of
        self._held: dict[bytes, Claimed] = {}
        self._stop = threading.Event()
        self._distrusted = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_alive_at = 0.0
        self._renewed_at = 0.0
        self._failed = False
        self._blocked_said = False

    def hold(self, claims: list[Claimed]) -> None:
        """Begin to renew."""
        for claimed in claims:
            self._held[claimed.raw_id] = claimed
        if self._thread is None:
            self._loop = asyncio.get_running_loop()
            self._loop_alive_at = self._renewed_at = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="holdfast-leases", daemon=True)
            self._thread.start()

    def release(self, claimed: Claimed) -> None:
        """Renew no longer; a younger claim of the same entry stays."""
        if self._held.get(claimed.raw_id) is claimed:
            del self._held[claimed.raw_id]

    def held(self, raw_id: bytes) -> Claimed | None:
        """Return the claim of this entry that is held here."""
        return self._held.get(raw_id)

    def held_ids(self, keys: scripts.QueueKeys) -> list[bytes]:
        """Return the ids that are held of one queue."""
        return [claimed.raw_id for claimed in self._held.values() if claimed.keys == keys]

    def distrust(self) -> None:
        """Renew by a new connection from now on."""
        self._distrusted.set()

    def stop(self) -> None:
        """End the thread; leases that are still held run out by themselves."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STOP_PATIENCE_S)  # it may be waiting for a Redis that does not answer
            self._thread = None

    def _run(self) -> None:
        lease_s = self._terms.lease_ms / 1000
        # A call that hangs must leave time for another one within the lease.
        client = self._connect(min(lease_s / RENEWALS_A_LEASE, LONGEST_CALL_S))
        renew, reclaim = client.register_script(upkeep.RENEW), client.register_script(upkeep.RECLAIM)
        interval_s = lease_s / RENEWALS_A_LEASE
        pause_s = interval_s
        try:
            while not self._stop.wait(pause_s):
                try:
                    self._watch_loop(interval_s)
                    if self._distrusted.is_set():
                        self._distrusted.clear()
                        client.connection_pool.disconnect()
                    self._renew_all(renew, reclaim)
                except Exception as error:  # whatever it was: without renewals others would take all runs
                    if not self._failed and not isinstance(error, RedisError | OSError):  # which the event loop says
                        logger.exception("leases were not renewed, trying on")
                    self._failed = True
                    client.connection_pool.disconnect()  # it may lead to a master that was demoted
                    pause_s = min(lease_s / RETRIES_A_LEASE, LONGEST_RETRY_PAUSE_S)
                else:
                    self._renewed_at, self._failed, pause_s = time.monotonic(), False, interval_s
        finally:
            client.close()

    def _renew_all(self, renew: Any, reclaim: Any) -> None:
        stood_still = time.monotonic() - self._renewed_at > self._terms.lease_ms / 1000 and not self._failed
        by_queue: dict[tuple[str, ...], list[Claimed]] = {}
        for claimed in list(self._held.values()):
            by_queue.setdefault(claimed.keys.all(), []).append(claimed)
        for keys, claims in by_queue.items():
            for start in range(0, len(claims), scripts.MAX_ENTRIES):
                group = claims[start : start + scripts.MAX_ENTRIES]
                ids = [claimed.raw_id for claimed in group]
                answer = renew(keys=keys, args=[self._terms.token, self._terms.lease_ms, *ids])
                states = list(zip(group, answer, strict=True))
                self._tell_lost([claimed for claimed, state in states if state not in (HELD, UNHELD)])
                unheld = [claimed for claimed, state in states if state == UNHELD]
                if stood_still:  # Redis did not fail, this process slept: they have been taken over and ended since
                    self._tell_lost(unheld)
                elif unheld:
                    self._reclaim(reclaim, keys, unheld)

    def _reclaim(self, reclaim: Any, keys: tuple[str, ...], unheld: list[Claimed]) -> None:
        alive = [claimed for claimed in unheld if not claimed.ending and claimed.raw_id in self._held]
        if not alive:
            return
        arguments: list[Any] = [self._terms.token, self._terms.lease_ms, self._terms.in_progress_ms]
        for claimed in alive:
            arguments += (claimed.raw_id, claimed.number, claimed.score, claimed.payload or b"")
        answer = reclaim(keys=keys, args=arguments)
        for claimed, again in zip(alive, answer, strict=True):
            self._call_in_loop(self._on_reclaimed if again else self._on_lost, claimed)

    def _tell_lost(self, claims: list[Claimed]) -> None:
        for claimed in claims:
            self._call_in_loop(self._on_lost, claimed)

    def _call_in_loop(self, action: Callable[[Claimed], None], claimed: Claimed) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(action, claimed)

    def _watch_loop(self, interval_s: float) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        silent_s = time.monotonic() - self._loop_alive_at
        blocker = asyncio.current_task(self._loop)
        if silent_s > 2 * interval_s and blocker is not None and not self._blocked_said:
            self._blocked_said = True
            logger.warning("%s has blocked the event loop for %.1f s", self._name_of(blocker), silent_s)
        self._loop.call_soon_threadsafe(self._beat)

    def _beat(self) -> None:
        self._loop_alive_at = time.monotonic()
        self._blocked_said = False
