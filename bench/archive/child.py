"""One measured process: ``python -m bench.archive.child WHAT URL [JSON]`` prints what it took as JSON.

``archive``: a run of the job, from its first look at the tables to its report; ``giant``: what a user would write, two
statements in one transaction; ``load``: short transactions of several clients until standard input is closed. What a
process needs to start does not count.
"""

import asyncio
import json
import random
import resource
import sys
import time
from typing import Any

import asyncpg
from pydantic import SecretStr

from db.connection import close_database, initialize_database
from holdfast.ids import uuid7
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted import archive_deleted
from jobs.context import RunContext
from jobs.settings import JobSettings
from tests.databases.runs import admitted
from worker.collector import spare_what_is_loaded
from worker.process import loop_factory

CLIENTS = 4
PAUSE_S = 0.005
GIANT = (
    """INSERT INTO tasks_archive ({columns}, archived_at, archive_run_id)
    SELECT {columns}, now(), gen_random_uuid() FROM tasks WHERE {due}""",
    "DELETE FROM tasks WHERE {due}",
)
DUE = "is_deleted AND deleted_at < now() - interval '90 days'"


async def run_archive(url: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run the job once."""
    folder = request.pop("folder", None)
    settings = JobSettings(_env_file=None, database_url=SecretStr(url), **({"archive_dir": folder} if folder else {}))
    await initialize_database(settings)
    spare_what_is_loaded()
    try:
        given = await admitted("bench")
        context = RunContext(given.run_id, "archive_deleted", given.attempt, given.fence, settings)
        before = _resident_mib()
        began = time.monotonic()
        report = await archive_deleted(context, ArchiveDeleted.model_validate(request))
        seconds = time.monotonic() - began
    finally:
        await close_database()
    return {
        "rows": sum(report.moved.values()),
        "seconds": seconds,
        "longest_s": report.longest_batch_ms / 1000,
        "paused_s": report.paused_s,
        "left": sum(report.left.values()),
        "mib": _resident_mib(),
        "mib_before": before,
    }


async def run_giant(url: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run the two statements in one transaction."""
    del request
    connection = await asyncpg.connect(url)
    names = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'tasks'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    columns = ", ".join(name[0] for name in names)
    began = time.monotonic()
    async with connection.transaction():
        for statement in GIANT:
            done = await connection.execute(statement.format(columns=columns, due=DUE))
    seconds = time.monotonic() - began
    await connection.close()
    return {"rows": int(done.split()[-1]), "seconds": seconds, "longest_s": seconds}


async def run_load(url: str, request: dict[str, Any]) -> dict[str, Any]:
    """Run short transactions until standard input is closed; returns how long each took."""
    del request
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    print("ready", flush=True)
    taken = await asyncio.gather(*(_client(url, ended) for _ in range(CLIENTS)))
    return {"seconds": [seconds for one in taken for seconds in one]}


async def _client(url: str, ended: asyncio.Event) -> list[float]:
    connection = await asyncpg.connect(url)
    users = [row[0] for row in await connection.fetch("SELECT id FROM users")]
    living = [row[0] for row in await connection.fetch("SELECT id FROM tasks WHERE NOT is_deleted LIMIT 10000")]
    taken = []
    while not ended.is_set():
        began = time.monotonic()
        async with connection.transaction():
            await connection.fetchrow("SELECT * FROM tasks WHERE id = $1", random.choice(living))  # noqa: S311
            await connection.execute(
                "UPDATE tasks SET title = 'changed', updated_at = now() WHERE id = $1",
                random.choice(living),  # noqa: S311
            )
            await connection.execute(
                "INSERT INTO tasks (id, title, user_id) VALUES ($1, 'new', $2)",
                uuid7(),
                random.choice(users),  # noqa: S311
            )
        taken.append(time.monotonic() - began)
        await asyncio.sleep(PAUSE_S)
    await connection.close()
    return taken


def _resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure what the command line names."""
    what, url, *rest = sys.argv[1:]
    run = {"archive": run_archive, "giant": run_giant, "load": run_load}[what]
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        found = runner.run(run(url, json.loads(rest[0]) if rest else {}))
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
