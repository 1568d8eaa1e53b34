"""The client for code without an event loop: each call runs the async client to its end."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar
from uuid import UUID

from holdfast.batches import Enqueued
from holdfast.client import Client
from holdfast.progress import Progress
from holdfast.requests import JobRequest, ReportT
from holdfast.run import Run
from holdfast.states import RunState

T = TypeVar("T")


class SyncClient:
    """``Client`` for code without an event loop, in one thread. Must not be used inside a running event loop.

    Args: as ``Client``.
    """

    def __init__(self, redis_url: str, **options: Any) -> None:
        self._client = Client(redis_url, **options)
        self._runner = asyncio.Runner()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to Redis and the private event loop; a second time it does nothing."""
        if self._is_closed:
            return
        self._run(self._client.close)
        self._is_closed = True
        self._runner.close()

    def enqueue(
        self,
        request: JobRequest[ReportT],
        *,
        at: datetime | None = None,
        run_id: str | None = None,
        unique_key: str | None = None,
    ) -> "SyncRun[ReportT]":
        """As ``Client.enqueue``."""
        return SyncRun(
            self._run, self._run(lambda: self._client.enqueue(request, at=at, run_id=run_id, unique_key=unique_key))
        )

    def enqueue_many(
        self,
        requests: Sequence[JobRequest[ReportT]],
        *,
        at: datetime | None = None,
        run_ids: Sequence[str] | None = None,
        unique_keys: Sequence[str | None] | None = None,
    ) -> "Enqueued[SyncRun[ReportT]]":
        """As ``Client.enqueue_many``."""
        enqueued = self._run(
            lambda: self._client.enqueue_many(requests, at=at, run_ids=run_ids, unique_keys=unique_keys)
        )
        return Enqueued(tuple(SyncRun(self._run, run) for run in enqueued.runs), enqueued.taken)

    def run(
        self, run_id: str | UUID, report_type: type[ReportT], *, born_in_ledger: bool = False
    ) -> "SyncRun[ReportT]":
        """As ``Client.run``."""
        return SyncRun(self._run, self._client.run(run_id, report_type, born_in_ledger=born_in_ledger))

    def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("SyncClient was called inside a running event loop: await the methods of Client there")

        if self._is_closed:
            raise RuntimeError("this SyncClient was closed: make another one")

        async def awaited() -> T:
            return await call()

        return self._runner.run(awaited())


class Finish(Protocol):
    """Runs a coroutine function to its end and returns what it returned."""

    def __call__(self, call: Callable[[], Awaitable[T]]) -> T: ...  # noqa: D102


class SyncRun(Generic[ReportT]):
    """A handle to one run, for code without an event loop."""

    __slots__ = ("_async_run", "_finish", "id")

    def __init__(self, finish: Finish, run: Run[ReportT]) -> None:
        self.id = run.id
        self._finish = finish
        self._async_run = run

    @property
    def followed_id(self) -> str | None:
        """As ``Run.followed_id``."""
        return self._async_run.followed_id

    def status(self) -> RunState:
        """As ``Run.status``."""
        return self._finish(self._async_run.status)

    def progress(self) -> Progress | None:
        """As ``Run.progress``."""
        return self._finish(self._async_run.progress)

    def cancel(self) -> bool:
        """As ``Run.cancel``."""
        return self._finish(self._async_run.cancel)

    def result(self, *, timeout_s: float | None = None) -> ReportT:
        """As ``Run.result``."""
        return self._finish(lambda: self._async_run.result(timeout_s=timeout_s))
