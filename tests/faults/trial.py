"""Whole workers over a database and a Redis, producers by both doors, and the checker when all is over."""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import redis
from pydantic import SecretStr
from sqlalchemy import select

from db import migrate
from db.connection import DatabaseManager
from db.errors import is_transient
from db.repositories.job_run import RunRow
from db.settings import DatabaseSettings
from holdfast import Client, JobRequest, outbox
from holdfast.ids import uuid7_texts
from holdfast.outbox import job_runs, job_runs_history
from holdfast.states import LIVE_STATES, RunState
from tests.faults.effects import make_tables
from tests.faults.history import Asked, Expected, Findings, check_history
from tests.faults.kinds import TrialFail, TrialPoison, TrialWrite
from tests.processes import Starter, WorkerProcess, clean_environment
from tests.queue.engine.room import left_behind

PATIENCE_S = 60.0
HEARD_S = 15.0
LOOK_S = 0.02
END_LOOK_S = 0.05
"""While nothing is left but to wait for the end: each look takes time from the workers."""
RUNS_A_TRANSACTION = 500
QUICK = {
    "LEASE_S": "1",
    "HEARTBEAT_INTERVAL_S": "0.3",
    "HEARTBEAT_TIMEOUT_S": "1.5",
    "DISPATCH_INTERVAL_S": "0.1",
    "SHUTDOWN_GRACE_S": "2",
}
"""Settings under which a dead worker is missed soon; the long trials run with the defaults."""
BASIC = {
    "HOLDFAST_PLUGINS": "tests.faults.kinds",
    "DATABASE_POOL_SIZE": "10",
    "DATABASE_MAX_OVERFLOW": "10",
    "MAX_JOBS": "20",
}


def expected_of(request: JobRequest[Any]) -> Expected:
    """What must come of a trial's request when nobody cancels it."""
    match request:
        case TrialWrite():
            return Expected(request.steps)
        case TrialPoison():
            return Expected(states=frozenset({RunState.QUARANTINED}))
        case TrialFail(times=None):
            return Expected(states=frozenset({RunState.FAILED}), most_charged=1)
        case TrialFail():
            return Expected(most_charged=request.times)
        case _:
            return Expected()


class Trial:
    """One trial's database, Redis, workers and producers; `open_trial` makes it.

    Args:
        manager: connections of the trial's own to a database that has the tables.
        database_url: the same, for the workers.
        redis_url: a Redis of the tests.
        folder: for the gates and the workers' output.
        settings: of all workers, by their names.
    """

    def __init__(
        self, manager: DatabaseManager, database_url: str, redis_url: str, folder: Path, settings: dict[str, str]
    ) -> None:
        self.manager = manager
        self.asked = Asked()
        self.folder = folder
        self.redis_url = redis_url
        # Untyped: redis-py types each answer of a blocking client as perhaps an awaitable.
        self.redis: Any = redis.Redis.from_url(redis_url, socket_timeout=PATIENCE_S)
        self.workers: list[WorkerProcess] = []
        self.starter: Starter | None = None
        """Starts the next workers in a quicker way; those can be killed, and not be paused."""
        self.is_quiet = False
        self.environment = clean_environment(
            DATABASE_URL=database_url, REDIS_URL=redis_url, HOLDFAST_DATA_DIR=str(folder / "data"), **BASIC, **settings
        )
        self._processes = ExitStack()

    @property
    def engine(self) -> str:
        """The database's engine."""
        return self.manager.engine.dialect.name

    def close(self) -> None:
        """Kills the workers that are left."""
        self._processes.close()
        self.redis.close()
        for worker in self.workers if not self.is_quiet else ():
            print(f"--- {worker.output.name}\n{worker.text[-6000:]}")  # pytest shows it when the test fails

    def worker(self, **settings: str) -> WorkerProcess:
        """Starts a worker; these settings win over the trial's."""
        name, environment = f"worker-{len(self.workers)}", self.environment | settings
        process = WorkerProcess(environment, self.folder, name=name, starter=self.starter)
        self.workers.append(self._processes.enter_context(process))
        return process

    async def started(self, count: int = 1, /, **settings: str) -> list[WorkerProcess]:
        """Starts workers and returns when they work."""
        workers = [self.worker(**settings) for _ in range(count)]
        for worker in workers:
            await asyncio.to_thread(worker.wait_for, "worker started")
        return workers

    async def command(self, *words: str) -> dict[str, Any]:
        """Runs `python -m worker ... --json` to its end; returns what it printed."""
        program = [sys.executable, "-m", "worker", *words, "--json"]

        def run() -> bytes:
            return subprocess.run(
                program, env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, check=True
            ).stdout

        document: dict[str, Any] = json.loads(await asyncio.to_thread(run))
        return document

    def gate(self, name: str = "gate") -> str:
        """The path of a gate for `TrialWrite`."""
        return str(self.folder / name)

    def open_gate(self, name: str = "gate") -> None:
        """Lets the runs of this gate begin."""
        (self.folder / name).touch()

    async def enqueue(
        self, requests: Iterable[JobRequest[Any]], *, expected: Expected | None = None, at: datetime | None = None
    ) -> list[str]:
        """Enqueues by the outbox, 500 in a transaction; returns the runs' ids.

        Args:
            requests: what is to be done.
            expected: what must come of each, where it is not the usual.
            at: when they are due.
        """
        waiting, ids = list(requests), list[str]()
        while waiting:
            group, waiting = waiting[:RUNS_A_TRANSACTION], waiting[RUNS_A_TRANSACTION:]
            async with self.manager.session() as session:
                made = [str(await outbox.enqueue(session, request, at=at)) for request in group]
            for job_id, request in zip(made, group, strict=True):
                self.asked.acknowledged[job_id].append(expected or expected_of(request))
            ids += made
        return ids

    async def send(self, requests: Iterable[JobRequest[Any]], *, at: datetime | None = None) -> list[str]:
        """Enqueues by the client, straight to Redis, and returns the ids when the ledger has them all."""
        given = list(requests)
        ids = uuid7_texts(len(given))
        async with Client(self.redis_url) as client:
            await client.enqueue_many(given, run_ids=ids, at=at)
        for job_id, request in zip(ids, given, strict=True):
            self.asked.acknowledged[job_id].append(expected_of(request))

        async def entered() -> bool:
            return set(ids) <= {run.job_id for run in await self.runs()}

        await self.until(entered, f"{len(ids)} direct runs in the ledger")
        return ids

    async def runs(self, *states: RunState) -> list[RunRow]:
        """Returns the runs in these states, all if none is given."""
        found: list[RunRow] = []
        async with self.manager.session(read_only=True) as session:
            for table in (job_runs, job_runs_history):
                query = select(table)
                if states:
                    query = query.where(table.c.state.in_([state.value for state in states]))
                found += (await session.execute(query)).all()
        return found

    async def running(self, worker: WorkerProcess | None = None) -> set[str]:
        """Returns the ids of the runs that run (in one worker)."""
        mark = "" if worker is None else f":{worker.pid}:"
        return {run.job_id for run in await self._live(RunState.RUNNING) if mark in run.worker_id}

    async def _live(self, *states: RunState, most: int | None = None) -> Sequence[Any]:
        """Returns ids and workers of (some) runs in these live states: `runs` is slow where there are thousands."""
        query = select(job_runs.c.job_id, job_runs.c.worker_id).limit(most)
        async with self.manager.session(read_only=True) as session:
            return (await session.execute(query.where(job_runs.c.state.in_([state.value for state in states])))).all()

    async def until_running(self, ids: Iterable[str], worker: WorkerProcess, *, within_s: float = PATIENCE_S) -> float:
        """Returns when all of these runs run in a worker: the seconds that it took."""
        wanted = set(ids)

        async def all_run() -> bool:
            return wanted <= await self.running(worker)

        return await self.until(all_run, f"{len(wanted)} runs in one worker", within_s=within_s)

    async def until_over(self, ids: Iterable[str] | None = None, *, within_s: float = PATIENCE_S) -> float:
        """Returns when these runs, or all that are there, are over: the seconds that it took."""
        wanted = None if ids is None else set(ids)

        async def all_over() -> bool:
            if wanted is None:
                return not await self._live(*LIVE_STATES, most=1)
            return not wanted & {run.job_id for run in await self._live(*LIVE_STATES)}

        return await self.until(all_over, "the end of the runs", within_s=within_s, look_s=END_LOOK_S)

    async def until(
        self,
        condition: Callable[[], Awaitable[bool]],
        what: str,
        *,
        within_s: float = PATIENCE_S,
        look_s: float = LOOK_S,
    ) -> float:
        """Returns when the condition holds; a server that is away is no reason to give up.

        Returns:
            The seconds that it took.

        Raises:
            AssertionError: it did not in time; the text says what was waited for.
        """
        began = time.monotonic()
        while not await self._holds(condition):
            if time.monotonic() - began > within_s:
                left = Counter(f"{run.state} {run.reason or ''}" for run in await self.runs())
                raise AssertionError(f"not in {within_s:g} s: {what}; the ledger has {dict(left)}")
            await asyncio.sleep(look_s)
        return time.monotonic() - began

    @staticmethod
    async def pause(seconds: float) -> None:
        """Lets a moment pass that a seed has drawn."""
        await asyncio.sleep(seconds)

    async def _holds(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await condition()
        except redis.RedisError:
            return False
        except Exception as error:
            if is_transient(error):
                return False
            raise

    async def findings(self, *, within_s: float = PATIENCE_S) -> Findings:
        """Returns what is wrong when all runs are over and Redis has heard of it."""
        await self.until_over(within_s=within_s)

        async def heard() -> bool:
            return not left_behind(self.redis)

        with suppress(AssertionError):  # what is left is among the findings
            await self.until(heard, "an empty Redis", within_s=HEARD_S)
        return await check_history(self.manager, self.asked, left_in_redis=left_behind(self.redis))


@asynccontextmanager
async def open_trial(database_url: str, redis_url: str, folder: Path, **settings: str) -> AsyncIterator[Trial]:
    """Opens a trial; its workers are killed at the end.

    Args:
        database_url: an empty database.
        redis_url: a Redis of the tests.
        folder: for gates and logs; it is there.
        settings: of all workers; `QUICK` where nothing else is said.
    """
    own = DatabaseSettings(_env_file=None, database_url=SecretStr(database_url))
    await migrate.upgrade(own)
    manager = DatabaseManager(own)
    try:
        await make_tables(manager.engine)
        trial = Trial(manager, database_url, redis_url, folder, settings or QUICK)
        try:
            yield trial
        finally:
            trial.close()
    finally:
        await manager.close()
