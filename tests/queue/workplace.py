"""Where the tests of the wire work: a real Redis, a database, a folder of import files, and worker processes."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import redis
from pydantic import SecretStr

from db import migrate
from db.connection import DatabaseManager
from db.models import JobAttempt
from db.repositories import job_run, run_list
from db.repositories.job_run import RunRow
from db.repositories.run_list import RunFilter
from holdfast.requests import ImportReport, ImportTasks
from samples.make_tasks import FIELD_MAP, ExpectedCounts, write_tasks
from tests.faults.history import Asked, Expected, check_history
from tests.processes import WorkerProcess, clean_environment
from worker.settings import Settings

PATIENCE_S = 60.0
"""Seconds for which a test waits for what must come; it fails after them."""
SUCCESS = Expected(0)
"""Of a run whose effects, if it has any, are no steps of a trial: nothing is charged, and it succeeds."""


@dataclass(frozen=True)
class Workplace:
    """One Redis, one database, one folder.

    Args:
        redis_url: a Redis of the tests.
        folder: holds the import files, the data folder and the workers' output.
        database_url: a migrated database; SQLite in the data folder, which workers migrate, when not given.
    """

    redis_url: str
    folder: Path
    database_url: str | None = None

    @property
    def imports(self) -> Path:
        """The folder from which workers may import."""
        return self.folder / "imports"

    @property
    def settings(self) -> Settings:
        """The workers' settings; the developer's own are not read."""
        return Settings(
            _env_file=None,
            database_url=None if self.database_url is None else SecretStr(self.database_url),
            redis_url=SecretStr(self.redis_url),
            holdfast_data_dir=self.folder / "data",
            import_roots=(self.imports,),
        )

    def environment(self, **more: str) -> dict[str, str]:
        """Returns the environment of a worker here."""
        known = {
            "REDIS_URL": self.redis_url,
            "HOLDFAST_DATA_DIR": str(self.folder / "data"),
            "IMPORT_ROOTS": str(self.imports),
            "LOG_FORMAT": "json",
            "HEARTBEAT_INTERVAL_S": "0.2",
            "DISPATCH_INTERVAL_S": "0.1",
        }
        if self.database_url is not None:
            known["DATABASE_URL"] = self.database_url
        return clean_environment(**(known | more))

    def worker(self, *arguments: str, name: str = "worker", program: Sequence[str] = (), **more: str) -> WorkerProcess:
        """Starts a worker; `more` are settings, `arguments` stand after `run`."""
        words = ("-m", "worker", "run") if not program else tuple(program)
        return WorkerProcess(self.environment(**more), self.folder, program=words, arguments=arguments, name=name)

    def started_worker(self, name: str = "worker", **more: str) -> WorkerProcess:
        """Starts a worker and waits until it works."""
        worker = self.worker(name=name, **more)
        worker.wait_for("worker started")
        return worker

    def write_tasks(self, name: str, rows: int, *, seed: int = 7) -> tuple[Path, ExpectedCounts]:
        """Writes an import file; returns it with what an import of it has to count."""
        self.imports.mkdir(parents=True, exist_ok=True)
        path = self.imports / name
        with path.open("w", encoding="utf-8", newline="") as file:
            return path, write_tasks(file, rows, seed)

    def import_request(self, name: str = "tasks.csv", *, rows: int = 50, batch_rows: int = 1000) -> ImportTasks:
        """Returns a request for an import file that is written for it."""
        path, _ = self.write_tasks(name, rows)
        return ImportTasks(source=str(path), mapping=FIELD_MAP, batch_rows=batch_rows)

    def redis(self) -> Any:
        """Returns a redis-py client, untyped: redis-py types each answer as perhaps an awaitable."""
        return redis.Redis.from_url(self.redis_url, socket_timeout=PATIENCE_S)

    @asynccontextmanager
    async def ledger(self) -> AsyncIterator["Ledger"]:
        """Opens the database; it is migrated already, or is migrated now."""
        settings = self.settings
        settings.holdfast_data_dir.mkdir(parents=True, exist_ok=True)
        await migrate.upgrade(settings)
        manager = DatabaseManager(settings)
        try:
            yield Ledger(manager)
        finally:
            await manager.close()


class Ledger:
    """What stands in `job_runs` and `job_attempts`."""

    def __init__(self, manager: DatabaseManager) -> None:
        self.manager = manager

    async def runs(self) -> Sequence[RunRow]:
        """Returns all runs, the newest first."""
        async with self.manager.session(read_only=True) as session:
            return await run_list.list_runs(session, RunFilter(), limit=1000)

    async def runs_of(self, job_id: str) -> list[RunRow]:
        """Returns the runs that Redis knew by this id, the newest first."""
        return [run for run in await self.runs() if run.job_id == job_id]

    async def run_of(self, job_id: str) -> RunRow:
        """Returns the only run that Redis knew by this id."""
        (run,) = await self.runs_of(job_id)
        return run

    async def attempts(self, run_id: UUID) -> Sequence[JobAttempt]:
        """Returns the ended attempts of a run, the first one first."""
        async with self.manager.session(read_only=True) as session:
            return await run_list.list_attempts(session, run_id)

    async def problems(self, asked: Mapping[str, Expected]) -> list[str]:
        """Returns what the history checker finds, when all runs should be over and these only were asked for."""
        given = Asked(acknowledged={job_id: [expected] for job_id, expected in asked.items()})
        return (await check_history(self.manager, given)).problems

    async def until(self, run_id: UUID, *states: str, rows_read: int = 0) -> RunRow:
        """Returns the run once it is in one of these states and has read so many rows."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with self.manager.session(read_only=True) as session:
                    run = await job_run.get_run(session, run_id)
                if run is not None and run.state in states and (run.counters or {}).get("rows_read", 0) >= rows_read:
                    return run
                await asyncio.sleep(0.02)


UNKEYED = {field if field != "external_key" else "metadata.key": column for field, column in FIELD_MAP.items()}
"""Each import of a file inserts its rows anew, so that tests may share a database."""


def assert_counts(report: ImportReport, expected: ExpectedCounts, *, keyed: bool = True) -> None:
    """Asserts that an import into an empty table, or one by `UNKEYED`, counted what stands in the file."""
    repeated = 0 if keyed else expected.rejected.get("duplicate_key", 0)
    rejected = sum(expected.rejected.values()) - repeated
    counted = (report.rows_read, report.inserted, report.rejected, report.updated, report.unchanged, report.skipped)
    assert counted == (expected.rows, expected.good + repeated, rejected, 0, 0, 0)


def log_events(worker: WorkerProcess) -> list[dict[str, Any]]:
    """Returns what a worker logged as JSON; every line of its output must be an object."""
    return [json.loads(line) for line in worker.text.splitlines()]
