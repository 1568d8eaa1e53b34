"""What a database does to a job in the middle of it, short of dying: sessions end, locks are held, room runs out."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID

import pytest
from sqlalchemy import Table, insert, literal, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from db.archive_tables import ARCHIVED_AT
from db.archives.keys import Key
from db.connection import DatabaseManager
from db.models import TASKS_ARCHIVE, Task, User
from holdfast.ids import uuid7
from tests.faults.place import Place
from tests.faults.watch import Watch
from tests.processes import WorkerProcess

Said = TypeVar("Said")
TASKS = cast("Table", Task.__table__)
PATIENCE_S = 20.0
LOOK_S = {"postgresql": 0.005, "mysql": 0.12}
"""MariaDB tells the same for a tenth of a second, and begins anew at each look."""
MOST_CONNECTIONS = 100
HEAVIER_ROWS = 1_000
"""MariaDB ends the transaction of a deadlock that has changed fewer rows: not that one."""
SESSIONS = {
    "postgresql": "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = database() AND id <> connection_id()",
}
END = {"postgresql": "SELECT pg_terminate_backend({})", "mysql": "KILL {}"}
WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock'",
    "mysql": "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'",
}


@dataclass(frozen=True)
class Scene:
    """An archive that is at work."""

    place: Place
    watch: Watch
    run_id: UUID
    worker: WorkerProcess

    @property
    def manager(self) -> DatabaseManager:
        """Connections of the trial's own."""
        return self.watch.manager


def _on(engine: dict[str, Said], session: AsyncSession) -> Said:
    return engine["postgresql" if session.get_bind().dialect.name == "postgresql" else "mysql"]


async def end_sessions(manager: DatabaseManager) -> int:
    """End all sessions of the database but one's own; returns how many."""
    async with manager.session() as session:
        return await _end(session, but=())


async def _end(session: AsyncSession, *, but: Collection[int]) -> int:
    pids = [pid for pid in await _look(session, SESSIONS) if pid not in but]
    for pid in pids:
        with suppress(DBAPIError):  # it has ended by itself
            await session.execute(text(_on(END, session).format(int(pid))))
    return len(pids)


async def _look(session: AsyncSession, queries: dict[str, str]) -> list[Any]:
    if session.get_bind().dialect.name == "postgresql":  # it shows the same for the whole of a transaction
        await session.execute(text("SELECT pg_stat_clear_snapshot()"))
    return list((await session.execute(text(_on(queries, session)))).scalars())


async def until_somebody_waits(manager: DatabaseManager) -> None:
    """Return when a session waits for a lock."""
    async with asyncio.timeout(PATIENCE_S), manager.session() as session:
        while not (await _look(session, WAITING))[0]:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(_on(LOOK_S, session))


async def due_key(manager: DatabaseManager, share: float) -> Key:
    """Return the key of a due row that is still to come; 0: the next one, 1: the last one."""
    async with manager.session(read_only=True) as session:
        keys = list(await session.scalars(select(TASKS.c.id).where(TASKS.c.is_deleted).order_by(TASKS.c.id)))
    return (keys[int((len(keys) - 1) * share)],)


@asynccontextmanager
async def archived_by_another(manager: DatabaseManager, key: Key) -> AsyncIterator[AsyncSession]:
    """Have a row in the archive, in a transaction that is not committed: an archive waits there; rolled back after."""
    names = [column.name for column in TASKS.columns]
    marks = [literal(uuid7(), TASKS_ARCHIVE.c.archive_run_id.type), TASKS.c.updated_at]
    source = select(*TASKS.columns, *marks).where(TASKS.c.id == key[0])
    async with manager.session() as session:
        copying = insert(TASKS_ARCHIVE).from_select([*names, "archive_run_id", ARCHIVED_AT], source)
        await session.execute(copying)
        yield session
        await session.rollback()


async def deadlock(manager: DatabaseManager, key: Key) -> None:
    """Let an archive and another transaction wait for each other; it is the archive that must give way."""
    async with archived_by_another(manager, key) as session:
        if manager.engine.dialect.name == "postgresql":
            await session.execute(text("SET LOCAL deadlock_timeout = '10s'"))
        else:
            users = [{"id": uuid7(), "username": f"heavier-{number}"} for number in range(HEAVIER_ROWS)]
            await session.execute(insert(User), users)
        await until_somebody_waits(manager)
        first = await due_key(manager, 0)  # of the archive's present batch
        await session.execute(update(TASKS).where(TASKS.c.id == first[0]).values(title="never committed"))


@asynccontextmanager
async def all_connections(place: Place) -> AsyncIterator[int]:
    """Take every connection that the server has to give, those of others too; tells how many."""
    manager = DatabaseManager(place.settings.model_copy(update={"database_pool_size": MOST_CONNECTIONS}))
    try:
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(manager.session())
            mine = [await _pid(first)]
            while True:
                with suppress(Exception):
                    mine.append(await _pid(await stack.enter_async_context(manager.session())))
                    continue
                if not await _end(first, but=mine):
                    break
            yield len(mine)
    finally:
        await manager.close()


async def _pid(session: AsyncSession) -> int:
    own = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT connection_id()"}
    return int((await session.execute(text(_on(own, session)))).scalar_one())


@contextmanager
def tiny_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a file system of a size; skips the test where that may not be done."""
    folder.mkdir(parents=True, exist_ok=True)
    command: list[Any] = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", folder]
    mounted = subprocess.run(command, capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path) -> Path:
    """Fill a disk to its last byte; returns the file that does it."""
    ballast = folder / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast
