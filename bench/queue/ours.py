"""Ours as it is measured: the worker's real command, and a producer on the library's client."""

import os
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NoReturn, TypeVar

from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from bench.queue.kinds import request_of
from bench.queue.settings import WorkerPlace, kept_environment
from db import migrate
from db.settings import DatabaseSettings
from holdfast import Client

WORKER_COMMAND = (sys.executable, "-m", "worker", "run")
NAP_S = 0.05
GROUP = 5000

T = TypeVar("T")


def become_worker(place: WorkerPlace) -> NoReturn:
    """Replace this process by ``python -m worker run``."""
    place.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    environment = {**kept_environment(), **place.environment()}
    os.execve(WORKER_COMMAND[0], WORKER_COMMAND, environment)  # noqa: S606 - our own command


def value_of(job: str) -> float:
    """Return the number that a job is enqueued with where nobody names one."""
    return NAP_S if job.startswith("nap") else 0.0


async def enqueue_many(client: Client, job: str, count: int) -> None:
    """Enqueue many runs of one kind, in as few round trips as the client knows."""
    requests = (request_of(job, value_of(job)) for _ in range(count))
    for group in _groups(requests, GROUP):
        await client.enqueue_many(group)


def _groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while group := list(islice(iterator, size)):
        yield group


async def empty_ledger(database_url: str) -> None:
    """Make the database if it is missing, bring it up to date, and remove every run."""
    url = make_url(database_url).set(drivername="postgresql+asyncpg")
    server = create_async_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    async with server.connect() as connection:
        there = await connection.scalar(text("SELECT 1 FROM pg_database WHERE datname = :name"), {"name": url.database})
        if not there:
            await connection.execute(text(f'CREATE DATABASE "{url.database}"'))
    await server.dispose()
    settings = DatabaseSettings(database_url=database_url)
    await migrate.upgrade(settings)
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        names = await connection.scalars(
            text(r"SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename LIKE 'job\_%'")
        )
        await connection.execute(text("TRUNCATE " + ", ".join(f'"{name}"' for name in names) + " CASCADE"))
    await engine.dispose()
