"""Enqueue a request and follow its run, from any service that can reach Redis."""

import time
from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from holdfast import wire
from holdfast.batches import Batch, Enqueued, Entry, calls, check_run_id, due_score, request_payload
from holdfast.bell import Bell
from holdfast.connection import QueueConnection, Word
from holdfast.errors import QueueUnavailable, RunExists
from holdfast.ids import uuid7_texts
from holdfast.requests import JobRequest, ReportT
from holdfast.run import Run
from holdfast.scripts import ENQUEUE
from holdfast.watch import ResultWatch

DEFAULT_TIMEOUT_S = 4.0


class Client:
    """A connection to the queue. Use it as an async context manager, or call ``close``.

    Any number of coroutines of one event loop may share it.

    Args:
        redis_url: ``redis://``, ``rediss://`` (TLS), ``unix://``, or with sentinels
            ``redis+sentinel://[user:password@]host:26379,host2:26379/0?service=mymaster`` (TLS: ``rediss+sentinel://``).
        queue: the queue's name.
        namespace: the workers' ``HOLDFAST_NAMESPACE``, which keeps environments apart that share a Redis.
        timeout_s: the deadline of each call to Redis, in seconds.
        max_payload_bytes: the largest request that is sent, in bytes of JSON; more than the workers'
            ``MAX_PAYLOAD_BYTES`` fails there.
    """

    def __init__(
        self,
        redis_url: str,
        *,
        queue: str = wire.DEFAULT_QUEUE,
        namespace: str = "",
        timeout_s: float = DEFAULT_TIMEOUT_S,
        max_payload_bytes: int = wire.MAX_PAYLOAD_BYTES,
    ) -> None:
        queue = wire.queue_key(queue, namespace)
        self._connection = QueueConnection(redis_url, queue=queue, timeout_s=timeout_s)
        self._watch = ResultWatch(self._connection)
        self._bell = Bell(self._connection)
        self._connections = (self._connection, self._watch)
        self._keys = (queue, queue + wire.INTAKE_SUFFIX)
        self._max_payload_bytes = max_payload_bytes

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to Redis."""
        try:
            await self._bell.close()
        finally:
            await self._watch.close()
            await self._connection.close()

    async def ping(self) -> None:
        """Ask Redis for a sign of life.

        Raises:
            QueueUnavailable: it gave none.
        """
        await self._connection.call("PING")

    async def enqueue(
        self,
        request: JobRequest[ReportT],
        *,
        at: datetime | None = None,
        run_id: str | None = None,
        unique_key: str | None = None,
    ) -> Run[ReportT]:
        """Enqueue a request; as durable as that Redis is until a worker has entered it into the ledger.

        Args:
            request: what is to be done.
            at: when it is due, an aware time; now if not given.
            run_id: the run's id, for a safe repetition after ``QueueUnavailable(outcome="unknown")``.
            unique_key: while a run of this kind with the same key is live, this one ends as its duplicate, and the
                handle follows to the other; at most 150 characters. Kinds without a ledger do not look at it.

        Returns:
            A handle to the run.

        Raises:
            RunExists: the id is taken.
            PayloadTooLarge: the request is too large; nothing was sent.
            QueueUnavailable: Redis refused or did not answer.
            ValueError: ``at`` has no time zone, id or unique key are empty or too long, or a text cannot be stored.
        """
        due = due_score(at)
        if run_id is None:
            (run_id,) = uuid7_texts(1)
        else:
            check_run_id(run_id)
        payload = request_payload(request, _now_ms(), unique_key=unique_key, max_bytes=self._max_payload_bytes)
        try:
            taken = await self._connection.run(ENQUEUE, self._keys, due, int(request.ledger), run_id, payload)
        except QueueUnavailable as error:
            error.run_ids = (run_id,)
            raise
        if taken:
            raise RunExists(f"run {run_id} exists already: follow it with Client.run, or use another id")
        return Run(self._connections, run_id, request.report_type, in_ledger=False)

    async def enqueue_many(
        self,
        requests: Sequence[JobRequest[ReportT]],
        *,
        at: datetime | None = None,
        run_ids: Sequence[str] | None = None,
        unique_keys: Sequence[str | None] | None = None,
    ) -> Enqueued[Run[ReportT]]:
        """Enqueue many requests, with one call to Redis for each 500; runs that are due at once start in this order.

        Args:
            requests: what is to be done.
            at: when they are due, an aware time; now if not given.
            run_ids: an id for each request, for a safe repetition; an id that is taken is left out and told.
            unique_keys: a key or None for each request, as in ``enqueue``.

        Returns:
            The handles, and the ids that were taken.

        Raises:
            PayloadTooLarge: a request is too large; nothing was sent.
            QueueUnavailable: Redis refused or did not answer. Where ``outcome`` is ``"unknown"`` some may be enqueued:
                enqueue all once more with the error's ``run_ids``.
            ValueError: ``at`` has no time zone, an id or key is missing, empty or too long, or a text cannot be stored.
        """
        due = due_score(at)
        batch = Batch(requests, run_ids, unique_keys)
        entries = await batch.entries(_now_ms(), self._max_payload_bytes)
        taken = set(batch.repeated)
        is_begun = False
        try:
            for call in calls(entries):
                taken.update(await self._enqueue_call(due, call))
                is_begun = True
        except QueueUnavailable as error:
            error.run_ids = tuple(batch.run_ids)
            error.outcome = "unknown" if is_begun else error.outcome
            raise
        runs: tuple[Run[ReportT], ...] = tuple(
            Run(self._connections, run_id, request.report_type, in_ledger=False)
            for request, run_id in zip(requests, batch.run_ids, strict=True)
        )
        return Enqueued(runs, tuple(batch.run_ids[position] for position in sorted(taken)))

    def run(self, run_id: str | UUID, report_type: type[ReportT], *, born_in_ledger: bool = False) -> Run[ReportT]:
        """Return a handle to a run that was enqueued before; Redis is not asked.

        Args:
            run_id: the run's id, as ``enqueue`` or ``holdfast.outbox.enqueue`` gave it.
            report_type: what its report is.
            born_in_ledger: True for a run of the outbox: it is in Redis only once it has been dispatched, so that one
                that is not there is waiting. A wait without a limit never ends where the transaction was rolled back.
        """
        return Run(self._connections, str(run_id), report_type, in_ledger=born_in_ledger)

    def ring(self, queue: str | None = None) -> None:
        """Wake idle workers, because a transaction with a run of the outbox was committed.

        Best effort: it returns at once, never fails, and what it should have told is found by the workers' next look.
        ``holdfast.outbox.ring_after_commit`` calls it for you.

        Args:
            queue: the queue's key, if not this client's.
        """
        self._bell.ring(queue or self._connection.queue)

    async def _enqueue_call(self, due: str, entries: Sequence[Entry]) -> list[int]:
        """Enqueue what goes into one call; return the positions of those whose id was taken."""
        words: list[Word] = [due, sum(entry.ledger for entry in entries)]
        for entry in entries:
            words += (entry.run_id, entry.payload)
        taken: list[Any] = await self._connection.run(ENQUEUE, self._keys, *words)
        return [entries[position - 1].at for position in taken]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
