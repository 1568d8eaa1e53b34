"""Enqueue a request and follow its run, from any service that can reach Redis."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from holdfast import wire
from holdfast.connection import QueueConnection
from holdfast.errors import RunExists
from holdfast.ids import uuid7
from holdfast.progress import Progress
from holdfast.requests import JobRequest, ReportT
from holdfast.run import Run
from holdfast.states import RunState

T = TypeVar("T")


class Client:
    """A connection to the queue. Use it as an async context manager, or call ``close``.

    Args:
        redis_url: ``redis://``, ``rediss://`` or ``unix://``.
        queue: the queue's key.
        timeout_s: the deadline of each call to Redis, in seconds.
    """

    def __init__(self, redis_url: str, *, queue: str = wire.DEFAULT_QUEUE, timeout_s: float = 5.0) -> None:
        self._connection = QueueConnection(redis_url, queue=queue, timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections to Redis."""
        await self._connection.close()

    async def ping(self) -> None:
        """Ask Redis for a sign of life.

        Raises:
            QueueUnavailable: it gave none.
        """
        await self._connection.call("PING")

    async def enqueue(
        self, request: JobRequest[ReportT], *, at: datetime | None = None, run_id: str | None = None
    ) -> Run[ReportT]:
        """Enqueue a request; as durable as that Redis is until a worker has entered it into the ledger.

        Args:
            request: what is to be done.
            at: when it is due, an aware time; now if not given.
            run_id: the run's id, for a safe repetition after ``QueueUnavailable(outcome="unknown")``.

        Returns:
            A handle to the run.

        Raises:
            RunExists: the id is taken.
            QueueUnavailable: Redis refused or did not answer.
            ValueError: ``at`` has no time zone.
        """
        if at is not None and at.tzinfo is None:
            raise ValueError(f"at={at.isoformat()} has no time zone; give one, for example datetime.now(UTC)")
        run_id = run_id or str(uuid7())
        payload = wire.job_payload(request.kind, request.payload(), time.time_ns() // 1_000_000)
        due = "" if at is None else str(int(at.astimezone(UTC).timestamp() * 1000))
        keys = (wire.JOB_KEY + run_id, wire.RESULT_KEY + run_id, self._connection.queue)
        taken = await self._connection.call("EVAL", wire.ENQUEUE_LUA, len(keys), *keys, payload, due, run_id)
        if not taken:
            raise RunExists(f"run {run_id} exists already: follow it with Client.run, or use another id")
        return Run(self._connection, run_id, request.typed_report())

    def run(self, run_id: str, report_type: type[ReportT]) -> Run[ReportT]:
        """Return a handle to a run that was enqueued before; Redis is not asked."""
        return Run(self._connection, run_id, report_type)


class SyncClient:
    """The same for code without an event loop: each call runs the async client to its end.

    Args: as ``Client``. Must not be used inside a running event loop.
    """

    def __init__(self, redis_url: str, *, queue: str = wire.DEFAULT_QUEUE, timeout_s: float = 5.0) -> None:
        self._runner = asyncio.Runner()
        self._client = Client(redis_url, queue=queue, timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to Redis and the private event loop."""
        self._run(self._client.close)
        self._runner.close()

    def enqueue(
        self, request: JobRequest[ReportT], *, at: datetime | None = None, run_id: str | None = None
    ) -> "SyncRun[ReportT]":
        """As ``Client.enqueue``."""
        return SyncRun(self._run, self._run(lambda: self._client.enqueue(request, at=at, run_id=run_id)))

    def run(self, run_id: str, report_type: type[ReportT]) -> "SyncRun[ReportT]":
        """As ``Client.run``."""
        return SyncRun(self._run, self._client.run(run_id, report_type))

    def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        async def awaited() -> T:
            return await call()

        return self._runner.run(awaited())


class Finish(Protocol):
    """Runs a coroutine function to its end and returns what it returned."""

    def __call__(self, call: Callable[[], Awaitable[T]]) -> T: ...  # noqa: D102


class SyncRun(Generic[ReportT]):
    """A handle to one run, for code without an event loop."""

    def __init__(self, finish: Finish, run: Run[ReportT]) -> None:
        self.id = run.id
        self._finish = finish
        self._async_run = run

    def status(self) -> RunState:
        """As ``Run.status``."""
        return self._finish(self._async_run.status)

    def progress(self) -> Progress | None:
        """As ``Run.progress``."""
        return self._finish(self._async_run.progress)

    def result(self, *, timeout_s: float | None = None) -> ReportT:
        """As ``Run.result``."""
        return self._finish(lambda: self._async_run.result(timeout_s=timeout_s))
