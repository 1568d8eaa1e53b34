"""Workers over one queue, what is enqueued for them, and the marks that their jobs leave."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from holdfast import wire
from tests.processes import WorkerProcess, clean_environment
from tests.servers import wait_until

WAIT_S = 30.0
LEASE_S = 1.5


@dataclass(frozen=True, slots=True)
class Mark:
    """What a job left."""

    event: str
    job_id: str
    pid: int
    job_try: int
    at: float


class Room:
    """A queue with its workers; leaving the `with` block kills them.

    Args:
        url: of the Redis.
        folder: for the marks, the gates and the workers' output.
    """

    def __init__(self, url: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.url = url
        self.folder = folder
        self.marks_file = folder / "marks"
        # Untyped: redis-py types each answer of a blocking client as perhaps an awaitable.
        self.redis: Any = redis.Redis.from_url(url, socket_timeout=WAIT_S)
        self.workers: list[WorkerProcess] = []
        self._processes = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._processes.close()
        self.redis.close()
        for worker in self.workers:
            print(f"--- {worker.output.name}\n{worker.text[-4000:]}")  # pytest shows it when the test fails

    def start(self, *, ready: bool = True, **options: Any) -> WorkerProcess:
        """Starts a worker.

        Args:
            ready: return when it serves.
            options: of `worker_script`; attributes of `Worker` among them. The lease is `LEASE_S` unless given.
        """
        options = {"redis_url": self.url, "marks": str(self.marks_file), "lease_s": LEASE_S, **options}
        worker = WorkerProcess(
            clean_environment(ENGINE_OPTIONS=json.dumps(options)),
            self.folder,
            program=("-m", "tests.queue.engine.worker_script"),
            arguments=(),
            name=f"worker-{len(self.workers)}",
        )
        self.workers.append(self._processes.enter_context(worker))
        if ready:
            worker.wait_for("redis_version")
        return worker

    def enqueue(self, function: str, *arguments: Any, job_id: str, **options: Any) -> str:
        """Enqueues one job as `enqueue_all` does; returns its id."""
        self.enqueue_all(function, [job_id], *arguments, **options)
        return job_id

    def enqueue_all(
        self,
        function: str,
        job_ids: Iterable[str],
        *arguments: Any,
        queue: str = wire.DEFAULT_QUEUE,
        defer_s: float = 0.0,
    ) -> None:
        """Enqueues jobs by the commands of arq 0.28, in one transaction."""
        now_ms = time.time_ns() // 1_000_000
        payload = wire.dumps({"t": None, "f": function, "a": arguments, "k": {}, "et": now_ms})
        with self.redis.pipeline(transaction=True) as pipe:
            for job_id in job_ids:
                pipe.set(wire.JOB_KEY + job_id, payload, px=86_400_000)
                pipe.zadd(queue, {job_id: now_ms + int(defer_s * 1000)})
            pipe.execute()

    def open_gate(self, gate: str = "gate") -> None:
        """Lets the `gated` jobs of this gate end."""
        (self.folder / gate).touch()

    def marks(self) -> list[Mark]:
        """Everything that jobs have marked, in their order."""
        if not self.marks_file.exists():
            return []
        return [Mark(**json.loads(line)) for line in self.marks_file.read_text().splitlines()]

    def count(self, event: str, pid: int | None = None) -> Counter[str]:
        """How often each job had this event (in one process)."""
        return Counter(mark.job_id for mark in self.marks() if mark.event == event and pid in {None, mark.pid})

    def wait_for(self, event: str, job_ids: Sequence[str], pid: int | None = None, timeout_s: float = WAIT_S) -> None:
        """Returns when all of these jobs had the event (in one process).

        Raises:
            AssertionError: some had not in time.
        """
        wait_until(lambda: set(job_ids) <= set(self.count(event, pid)), timeout_s)
        missing = sorted(set(job_ids) - set(self.count(event, pid)))
        assert not missing, f"{len(missing)} of {len(job_ids)} jobs had no {event!r} in {timeout_s} s: {missing[:5]}"

    def wait(self, condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
        """Returns when the condition is true.

        Raises:
            AssertionError: it was not in time; the text says what was waited for.
        """
        assert wait_until(condition, timeout_s), f"not in {timeout_s} s: {what}"

    def result(self, job_id: str) -> dict[str, Any] | None:
        """The result as Redis has it: `s` (success), `r` and the rest of arq's fields."""
        data = self.redis.get(wire.RESULT_KEY + job_id)
        return None if data is None else wire.loads(data)

    def wait_for_results(self, job_ids: Sequence[str], timeout_s: float = WAIT_S) -> dict[str, dict[str, Any]]:
        """Returns the results of these jobs when all are there."""
        keys = [wire.RESULT_KEY + job_id for job_id in job_ids]
        self.wait(lambda: self.redis.exists(*keys) == len(set(keys)), f"the results of {len(keys)} jobs", timeout_s)
        return {job_id: wire.loads(data) for job_id, data in zip(job_ids, self.redis.mget(keys), strict=True)}

    def left_behind(self, queue: str = wire.DEFAULT_QUEUE) -> list[str]:
        """The keys of runs and claims that Redis still has; nothing when all is over."""
        return left_behind(self.redis, queue)


def left_behind(client: Any, queue: str = wire.DEFAULT_QUEUE) -> list[str]:
    """The keys of runs and claims that a Redis still has; nothing when all is over."""
    patterns = (f"{queue}*", wire.JOB_KEY + "*", wire.IN_PROGRESS_KEY + "*", wire.RETRY_KEY + "*", wire.ABORT_KEY)
    raw = {key for pattern in patterns for key in client.scan_iter(pattern, count=1000)}
    found = [key.decode(errors="backslashreplace") for key in raw]
    return sorted(key for key in found if not key.endswith((":health-check", ":quarantine", ":damaged", ":compared")))


def ids(prefix: str, count: int) -> list[str]:
    """Returns so many job ids."""
    return [f"{prefix}-{number}" for number in range(count)]
