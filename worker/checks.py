"""Every problem of the configuration at once, with the setting to change."""

import os
from dataclasses import asdict, dataclass

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from db import migrate
from db.connection import DatabaseManager
from db.errors import DatabaseUnavailable, first_line
from db.plugins import PluginError, database_plugins
from db.repositories import job_run
from db.urls import is_in_memory, masked
from jobs.archive_deleted.plan import RETENTIONS, unknown_retentions
from jobs.catalogs import open_catalog
from worker import redis_server
from worker.redis_url import make_client
from worker.settings import Settings

RIGHTS_ADVICE = "let this user read and write all of Holdfast's tables, or name another one"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and what to do."""

    setting: str
    value: str
    rule: str
    advice: str

    def as_dict(self) -> dict[str, str]:
        """Return it as ``--json`` shows it."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.setting}={self.value}: {self.rule}; {self.advice}"


async def find_problems(settings: Settings) -> list[Problem]:
    """Look at the settings, the folders, the database and Redis."""
    problems = [*_sizes(settings), *_folders(settings), *_plugins(settings)]
    problems += await _database(settings)
    if settings.redis_url is not None:
        problems += await _redis(settings)
    return problems


def _sizes(settings: Settings) -> list[Problem]:
    found = []
    connections = settings.database_pool_size + settings.database_max_overflow
    if settings.max_jobs > connections:
        found.append(
            Problem(
                "MAX_JOBS",
                str(settings.max_jobs),
                f"more jobs than the {connections} connections of DATABASE_POOL_SIZE and DATABASE_MAX_OVERFLOW: "
                "jobs will wait for connections",
                "raise the pool or lower MAX_JOBS",
            )
        )
    if settings.queue_is_embedded and settings.queue_key not in {queue.name for queue in settings.served_queues}:
        found.append(
            Problem(
                "QUEUES",
                ",".join(queue.name for queue in settings.queues),
                f"does not name QUEUE_NAME ({settings.queue_name}), and an embedded queue has one worker: "
                "what the command line enqueues would wait for ever",
                f"add {settings.queue_name} to it",
            )
        )
    if settings.heartbeat_timeout_s < 3 * settings.heartbeat_interval_s:
        found.append(
            Problem(
                "HEARTBEAT_TIMEOUT_S",
                f"{settings.heartbeat_timeout_s:g}",
                f"less than three times HEARTBEAT_INTERVAL_S ({settings.heartbeat_interval_s:g}): "
                "a late heartbeat makes a living worker look dead",
                f"set it to {3 * settings.heartbeat_interval_s:g} or more",
            )
        )
    if is_in_memory(settings.url):
        found.append(
            Problem(
                "DATABASE_URL", ":memory:", "dies with the process", "use it for tests only; name a file or a server"
            )
        )
    return found


def _folders(settings: Settings) -> list[Problem]:
    folder = settings.holdfast_data_dir.absolute()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    rule, advice = f"{nearest} cannot be written", "name a folder of the worker's user"
    found = [] if writable else [Problem("HOLDFAST_DATA_DIR", str(folder), rule, advice)]
    rule, advice = "is not a folder that the worker can read", "correct or remove it"
    unreadable = [root for root in settings.import_roots if not (root.is_dir() and os.access(root, os.R_OK | os.X_OK))]
    return found + [Problem("IMPORT_ROOTS", str(root), rule, advice) for root in unreadable]


def _plugins(settings: Settings) -> list[Problem]:
    try:
        catalog = open_catalog(settings)
        database_plugins(settings.holdfast_plugins)
    except PluginError as error:
        place, _, words = str(error).partition(": ")
        setting, _, name = place.partition("=")
        rule, _, advice = words.rpartition("; ")
        return [Problem(setting, name, rule, advice)]
    found = []
    for table, unknown in unknown_retentions(settings, catalog):
        rule, _, advice = str(unknown).partition(": ")
        found.append(Problem(RETENTIONS, table, rule, advice))
    return found


async def _database(settings: Settings) -> list[Problem]:
    if settings.database_is_embedded and not (settings.holdfast_data_dir / "holdfast.db").exists():
        return []  # it is made and migrated by the first command that needs it
    try:
        manager = DatabaseManager(settings)
    except DatabaseUnavailable as error:
        rule, _, advice = str(error).rpartition("; ")
        return [Problem("DATABASE_TLS", str(settings.database_tls), rule, advice)]
    try:
        return await _ledger(manager, settings)
    finally:
        await manager.close()


async def _ledger(manager: DatabaseManager, settings: Settings) -> list[Problem]:
    shown = masked(settings.url)
    try:
        await manager.connect()
        await migrate.require_current(manager)
        async with manager.session() as session:
            await job_run.try_to_write(session)
    except DatabaseUnavailable as error:
        advice = str(error).rpartition("; ")[2]
        return [Problem("DATABASE_URL", shown, first_line(error.__cause__ or error), advice)]
    except migrate.SchemaOutdated as error:
        if settings.database_migrates_itself:
            return []
        return [Problem("DATABASE_URL", shown, str(error).split(":", 1)[0], "run `python -m worker db upgrade`")]
    except DBAPIError as error:
        return [Problem("DATABASE_URL", shown, first_line(error), RIGHTS_ADVICE)]
    return []


async def _redis(settings: Settings) -> list[Problem]:
    client = make_client(settings.redis_address, timeout_s=2.0)
    try:
        await client.ping()
        rules = await redis_server.broken_rules(client, settings.served_queues[0].name)
    except (RedisError, OSError) as error:
        return [Problem("REDIS_URL", settings.queue_home, first_line(error), "start the server or correct the URL")]
    finally:
        await client.aclose()
    return [Problem("REDIS_URL", settings.queue_home, broken.rule, broken.advice) for broken in rules]
