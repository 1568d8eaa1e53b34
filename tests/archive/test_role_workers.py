"""Whole workers and the command line as the database's roles for them: what they are for works, the rest is refused."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from sqlalchemy import Table, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from db.connection import DatabaseManager, close_database, initialize_database
from db.models import TASKS_ARCHIVE, ArchivePart, Erasure, Task
from db.settings import DatabaseSettings
from tests.archive.runs import count, make_tasks, rows_of
from tests.cli.command import Ended, run_quickly
from tests.databases.conftest import empty_tables
from tests.processes import CHECKOUT, WorkerProcess, clean_environment
from tests.servers import MariaDBServer, PostgresServer

TASKS = cast("Table", Task.__table__)
PARTS = cast("Table", ArchivePart.__table__)
ERASURES = cast("Table", Erasure.__table__)
SERVERS = {"postgresql": "postgres_server", "mariadb": "mariadb_server"}
ROLES = ("archive", "restore")
DENIED = ("denied", "may not")


@dataclass(frozen=True)
class Staff:
    """A worker and a command line for each role; each serves a queue of its own.

    Args:
        owner_url: of the database.
        redis_url: of the queues.
        folder: for the data and the output.
    """

    owner_url: str
    redis_url: str
    folder: Path

    def settings(self, role: str) -> dict[str, str]:
        """Return the environment of one role, or of the owner."""
        url = make_url(self.owner_url)
        if role in ROLES:
            url = url.set(username=f"holdfast_{role}", password=None)
        return {
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "REDIS_URL": self.redis_url,
            "HOLDFAST_DATA_DIR": str(self.folder / "data"),
            "QUEUES": role,
            "QUEUE_NAME": role,
        }

    @contextmanager
    def at_work(self) -> Iterator[dict[str, WorkerProcess]]:
        """Start a worker of each role."""
        # A worker of the owner's is the first in a database, which it notes down.
        assert run_quickly("run", "--burst", folder=self.folder, **self.settings("owner")).code == 0
        with ExitStack() as stack:
            workers = {}
            for role in ROLES:
                environment = clean_environment(**self.settings(role))
                workers[role] = stack.enter_context(WorkerProcess(environment, self.folder, name=role))
            for worker in workers.values():
                worker.wait_for("worker started")
            yield workers
            for worker in workers.values():
                assert worker.terminate() == 0, worker.text

    def does(self, role: str, *words: str) -> Ended:
        """Run a command as a role."""
        return run_quickly(*words, "--json", folder=self.folder, **self.settings(role))


@pytest.fixture(params=list(SERVERS))
def granted_url(request: pytest.FixtureRequest) -> str:
    """The owner's URL of a database in which both roles have their rights."""
    url = str(request.getfixturevalue(f"migrated_{request.param}"))
    server: PostgresServer | MariaDBServer = request.getfixturevalue(SERVERS[request.param])
    for role in ROLES:
        server.execute((CHECKOUT / "deploy" / f"{request.param}-{role}-role.sql").read_text(encoding="utf-8"), url)
    return url


@pytest.fixture
async def staff(granted_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Staff]:
    """Staff of an empty database; the test itself is its owner."""
    settings = DatabaseSettings(database_url=granted_url, _env_file=None)
    await empty_tables(await initialize_database(settings, patience_s=10))
    yield Staff(granted_url, redis_url, tmp_path)
    await close_database()


@pytest.mark.parametrize("to", ["table", "files"])
async def test_rows_leave_by_one_role_and_come_back_or_go_by_the_other(staff: Staff, to: str) -> None:
    ids = list(map(str, await make_tasks(40, deleted=range(30))))
    with staff.at_work() as workers:
        assert staff.does("archive", "archive", "tasks", "--dry-run").document["due"] == {"tasks": 30}
        archived = staff.does("archive", "archive", "tasks", "--to", to)
        assert (archived.code, archived.document["moved"]) == (0, {"tasks": 30})
        back = staff.does("restore", "archives", "restore", "tasks", *ids[:3], ids[35])
        assert (back.code, back.document["restored"]) == (1, {"tasks": 3})
        assert [row["code"] for row in back.document["refused"]] == ["not_archived"]
        gone = staff.does("restore", "archives", "erase", "tasks", *ids[3:6], "--reason", "x", "--yes")
        assert (gone.code, gone.document["erased"], gone.document["listed"]) == (0, {"tasks": 3}, 3)
        again = staff.does("restore", "archives", "erase", "--again", "--yes")
        assert (again.code, again.document["erased"]) == (0, {})
        for role in ROLES:
            found = staff.does(role, "archives", "search", "tasks", "--limit", "100")
            assert len(found.document["rows"]) == 24
            assert staff.does(role, "archives", "list", "--verify").document["damaged"] == []
    assert await count(TASKS) == 13
    for worker in workers.values():
        assert not any(word in worker.text for word in DENIED), worker.text


async def test_a_purge_by_the_role(staff: Staff) -> None:
    await make_tasks(40, deleted=range(30))
    with staff.at_work():
        purged = staff.does("archive", "archive", "tasks", "--to", "purge", "--yes")
    assert (purged.code, purged.document["moved"]) == (0, {"tasks": 30})
    assert (await count(TASKS), await count(TASKS_ARCHIVE)) == (10, 0)


async def test_what_is_the_others_work_is_refused_by_the_database(staff: Staff) -> None:
    ids = await make_tasks(12, deleted=range(10))
    with staff.at_work() as workers:
        assert staff.does("archive", "archive", "tasks", "--max-rows", "4").code == 0
        assert staff.does("archive", "archive", "tasks", "--max-rows", "2", "--to", "files").code == 0
        key = str(min(await rows_of(TASKS_ARCHIVE)))
        before = [await count(table) for table in (TASKS, TASKS_ARCHIVE, PARTS, ERASURES)]
        refused = [
            staff.does("archive", "archives", "restore", "tasks", key),
            staff.does("archive", "archives", "erase", "tasks", key, "--reason", "x", "--yes"),
            staff.does("archive", "archives", "erase", "tasks", str(ids[9]), "--reason", "x", "--yes"),
            staff.does("restore", "archive", "tasks"),
            staff.does("restore", "archive", "tasks", "--to", "files"),
        ]
        for ended in refused:
            assert (ended.code, ended.document["state"]) == (1, "failed")
            assert "denied" in ended.document["error"]["message"]
        assert [await count(table) for table in (TASKS, TASKS_ARCHIVE, PARTS, ERASURES)] == before
        for worker in workers.values():
            assert worker.alive


FORBIDDEN_TO_RESTORE = (
    "UPDATE tasks SET title = 'other'",
    "UPDATE tasks_archive SET title = 'other'",
    "INSERT INTO tasks_archive (id, archived_at, archive_run_id) SELECT id, created_at, id FROM tasks",
    "INSERT INTO archive_parts (run_id, number) SELECT id, 1 FROM tasks",
    "UPDATE archive_parts SET table_name = 'other'",
    "DELETE FROM erasures",
    "UPDATE erasures SET reason = 'other'",
    "SELECT hashed_password FROM users",
    "SELECT username FROM users",
    "DELETE FROM users",
    "DELETE FROM job_runs",
    "UPDATE job_attempts SET outcome = 'x'",
    "UPDATE controls SET max_running = 1",
    "DROP TABLE tasks_archive",
    "TRUNCATE TABLE tasks",
    "CREATE TABLE mine (id INTEGER)",
    "ALTER TABLE tasks ADD COLUMN mine INTEGER",
)


async def test_the_role_that_restores_may_do_nothing_else(staff: Staff) -> None:
    await make_tasks(3, deleted=range(2))
    url = staff.settings("restore")["DATABASE_URL"]
    manager = DatabaseManager(DatabaseSettings(database_url=url, _env_file=None))
    try:
        for statement in FORBIDDEN_TO_RESTORE:
            with pytest.raises(DBAPIError, match=r"(?i)denied|must be owner"):
                async with manager.session() as session:
                    await session.execute(text(statement))
    finally:
        await manager.close()
    assert await count(TASKS) == 3
