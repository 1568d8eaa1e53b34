"""Where contestants meet: a Redis and a PostgreSQL of our own, and processes that are measured from outside."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import redis

from bench.queue import ours
from bench.queue.marks import Marks
from bench.queue.settings import MARKS_VARIABLE, WorkerPlace
from tests.processes import WorkerProcess, clean_environment
from tests.servers import PostgresServer, RedisServer

QUEUE = "arq:queue"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
CHILD_TIMEOUT_S = 900.0
START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Contestant:
    """A worker and its producer."""

    name: str
    engine: Literal["ours", "stock"]
    twin: Literal["", "ledgered", "session"] = ""
    """Which twin of a kind ours runs; empty: the light one."""
    tuned: bool = False
    slots: int = 100

    def kind(self, job: str) -> str:
        """Return the name of the kind for a job."""
        return f"{job}_{self.twin}" if self.twin else job


OURS = Contestant("ours", "ours")
OURS_LEDGERED = Contestant("ours, ledgered", "ours", twin="ledgered")
OURS_SESSION = Contestant("ours, with a session", "ours", twin="session")
STOCK = Contestant("stock arq", "stock")
STOCK_TUNED = Contestant("tuned arq", "stock", tuned=True)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What Redis has done so far."""

    commands: int
    reads: int
    """How often it read from a socket: the round trips, and as good as all of its system calls."""
    memory_bytes: int

    def since(self, earlier: "Traffic") -> "Traffic":
        """Return the difference."""
        return Traffic(
            self.commands - earlier.commands, self.reads - earlier.reads, self.memory_bytes - earlier.memory_bytes
        )


class Arena:
    """One run's servers and folder.

    Args:
        persistent: Redis writes its log and flushes it each second.
    """

    def __init__(self, *, persistent: bool = False) -> None:
        self._stack = ExitStack()
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-bench-")))
        self.redis_server = RedisServer(appendonly="everysec" if persistent else "no")
        self._postgres: PostgresServer | None = None
        self._workers = 0
        self.marks = self._new_marks()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.redis_server)
        self.redis: Any = self._stack.enter_context(redis.Redis.from_url(self.redis_server.url))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def postgres(self) -> PostgresServer:
        """PostgreSQL with fsync on, started when it is first needed.

        Raises:
            MissingBinaryError: it is not on this machine.
        """
        if self._postgres is None:
            self._postgres = self._stack.enter_context(PostgresServer(durable=True))
        return self._postgres

    @property
    def database_url(self) -> str:
        """The URL of the ledger's database."""
        return self.postgres.url.rsplit("/", 1)[0] + "/holdfast_bench"

    def clean(self, contestant: Contestant = OURS) -> None:
        """Begin a measurement: nothing is queued, no run is in the ledger, no mark is left."""
        self.redis_server.flush()
        if contestant.twin:
            asyncio.run(ours.empty_ledger(self.database_url))
        self.marks = self._new_marks()

    @contextmanager
    def worker(self, contestant: Contestant, *, count: int = 1) -> Iterator[list[WorkerProcess]]:
        """Run workers while the block runs."""
        with ExitStack() as stack:
            workers = [stack.enter_context(self._start_worker(contestant)) for _ in range(count)]
            yield workers
            for worker in workers:
                worker.kill()

    def produce(self, producer: str, command: str, *, job: str = "noop", count: int) -> dict[str, float]:
        """Run one command of a producer (``bench.queue.child``) to its end; returns its figures.

        Raises:
            RuntimeError: it failed.
        """
        url = self.database_url if producer == "outbox" else self.redis_server.url
        words = [producer, command, "--url", url, "--job", job, "--count", str(count)]
        words += ["--bell", self.redis_server.url]
        done = subprocess.run(
            [sys.executable, "-m", "bench.queue.child", *words],
            env=self._environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[-2000:]}")
        return cast("dict[str, float]", json.loads(done.stdout))

    def fill(self, contestant: Contestant, job: str, count: int) -> None:
        """Enqueue many runs, by the contestant's own producer."""
        self.produce(contestant.engine, "enqueue-many", job=contestant.kind(job), count=count)

    def traffic(self) -> Traffic:
        """Return what Redis has done until now."""
        info = self.redis.info("everything")
        return Traffic(info["total_commands_processed"], info["total_reads_processed"], info["used_memory"])

    def wait_until_empty(self, timeout_s: float = 30.0) -> None:
        """Return when Redis has heard that every run is over.

        Raises:
            TimeoutError: it has not in time.
        """
        deadline = time.monotonic() + timeout_s
        while self.redis.zcard(QUEUE):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.redis.zcard(QUEUE)} runs are still queued after {timeout_s:g} s")
            time.sleep(0.005)

    def wait_until_ready(self, contestant: Contestant) -> None:
        """Return when a worker takes up runs: a first one has started, and its mark is removed.

        Raises:
            TimeoutError: it has not in time.
        """
        self.fill(contestant, "noop", 1)
        self.marks.wait_for(1, START_TIMEOUT_S)
        self.wait_until_empty()
        self.marks.forget()

    def _start_worker(self, contestant: Contestant) -> WorkerProcess:
        self._workers += 1
        folder = self.folder / f"worker-{self._workers}"
        if contestant.engine == "ours":
            place = WorkerPlace(
                redis_url=self.redis_server.url,
                data_dir=self.folder / "data",
                marks=self.marks.path,
                slots=contestant.slots,
                database_url=self.database_url if contestant.twin else "",
            )
            place.data_dir.mkdir(exist_ok=True)
            return WorkerProcess(clean_environment(**place.environment()), folder)
        command = "tuned-worker" if contestant.tuned else "worker"
        words = ("stock", command, "--url", self.redis_server.url, "--count", str(contestant.slots))
        return WorkerProcess(self._environment(), folder, program=("-m", "bench.queue.child"), arguments=words)

    def _environment(self) -> dict[str, str]:
        return clean_environment(**{MARKS_VARIABLE: str(self.marks.path)})

    def _new_marks(self) -> Marks:
        return Marks(self.folder / "marks")


def cpu_seconds(workers: list[WorkerProcess]) -> float:
    """Return the CPU time of processes so far, in seconds; 0 where there is no /proc."""
    total = 0.0
    for worker in workers:
        stat = Path(f"/proc/{worker.pid}/stat")
        if stat.exists():
            fields = stat.read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / TICKS_PER_S
    return total
