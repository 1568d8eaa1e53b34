"""Where the workers of a trial work: a database, a queue, a data folder."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import SecretStr

from db import migrate
from db.connection import DatabaseManager
from holdfast import outbox
from holdfast.client import Client
from holdfast.requests import JobRequest
from tests.faults.watch import Watch
from tests.processes import Starter, WorkerProcess, clean_environment
from worker.settings import Settings

WORKER = ("-m", "worker")


@dataclass(frozen=True)
class Place:
    """A database, a queue and a data folder.

    Args:
        database_url: an empty database.
        folder: everything else: the data folder, the import root and the workers' output.
        redis_url: a Redis of the tests; the workers' embedded queue when not given.
        heartbeat_timeout_s: seconds of silence after which a worker counts as dead (embedded ones do at once).
        lease_s: seconds for which a claim in Redis holds without renewal.
        starter: starts the workers in a quicker way; as `WorkerProcess`.
    """

    database_url: str
    folder: Path
    redis_url: str | None = None
    heartbeat_timeout_s: float = 15.0
    lease_s: float = 1.0
    starter: Starter | None = None

    @property
    def settings(self) -> Settings:
        """The workers' settings."""
        return Settings(
            _env_file=None,
            database_url=SecretStr(self.database_url),
            redis_url=None if self.redis_url is None else SecretStr(self.redis_url),
            holdfast_data_dir=self.folder / "data",
            import_roots=(self.folder,),
            heartbeat_timeout_s=self.heartbeat_timeout_s,
            heartbeat_interval_s=min(2.0, self.heartbeat_timeout_s / 5),
        )

    def worker(self, name: str = "worker", *, program: Sequence[str] = WORKER, **more: str) -> WorkerProcess:
        """Starts a worker here, with these settings on top; its output goes to a file of that name."""
        settings = self.settings
        variables = {
            "DATABASE_URL": self.database_url,
            "HOLDFAST_DATA_DIR": str(settings.holdfast_data_dir),
            "IMPORT_ROOTS": str(self.folder),
            "HEARTBEAT_TIMEOUT_S": str(settings.heartbeat_timeout_s),
            "HEARTBEAT_INTERVAL_S": str(settings.heartbeat_interval_s),
            "LEASE_S": str(self.lease_s),
        }
        if self.redis_url is not None:
            variables["REDIS_URL"] = self.redis_url
        return WorkerProcess(
            clean_environment(**variables, **more), self.folder, program=program, name=name, starter=self.starter
        )

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[Watch]:
        """Makes the tables, and yields an eye on them over connections of its own."""
        settings = self.settings
        await migrate.upgrade(settings)
        manager = DatabaseManager(settings)
        try:
            yield Watch(manager)
        finally:
            await manager.close()

    async def enqueue(self, watch: Watch, request: JobRequest[Any]) -> UUID:
        """Enqueues by Redis where there is one, and by the ledger otherwise; returns the run's id."""
        if self.redis_url is None:
            async with watch.manager.session() as session:
                return await outbox.enqueue(session, request)
        async with Client(self.redis_url) as client:
            return UUID((await client.enqueue(request)).id)
