"""The archive as the database's role for it (deploy/), which may do that and nothing else."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import cast

import pytest
from sqlalchemy import Table, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from db.connection import DatabaseManager, close_database, get_async_session, initialize_database
from db.models import TASKS_ARCHIVE, Task
from db.settings import DatabaseSettings
from jobs.settings import JobSettings
from tests.archive.runs import archive, count, make_tasks
from tests.databases.conftest import empty_tables
from tests.databases.runs import admitted
from tests.processes import CHECKOUT
from tests.servers import MariaDBServer, PostgresServer
from worker import ledger
from worker.retries import Outcome

TASKS = cast("Table", Task.__table__)
ROLE = "holdfast_archive"


@dataclass
class Role:
    """The role's pool is open; the owner's is not the process's."""

    owner: DatabaseManager
    settings: JobSettings

    async def switch(self) -> None:
        """Be the role from here on."""
        await close_database()
        await initialize_database(self.settings)


@pytest.fixture(params=["postgresql", "mariadb"])
def granted_url(request: pytest.FixtureRequest) -> str:
    """The owner's URL of a database in which the role has its rights."""
    url = str(request.getfixturevalue(f"migrated_{request.param}"))
    name = {"postgresql": "postgres_server", "mariadb": "mariadb_server"}[request.param]
    server: PostgresServer | MariaDBServer = request.getfixturevalue(name)
    grants = CHECKOUT / "deploy" / f"{request.param}-archive-role.sql"
    server.execute(grants.read_text(encoding="utf-8"), url)
    return url


@pytest.fixture
async def role(granted_url: str, job_settings: JobSettings) -> AsyncIterator[Role]:
    url = granted_url
    mine = make_url(url).set(username=ROLE, password=None).render_as_string(hide_password=False)
    owner = await initialize_database(DatabaseSettings(database_url=url, _env_file=None), patience_s=10)
    await empty_tables(owner)
    settings = JobSettings(database_url=mine, holdfast_data_dir=job_settings.holdfast_data_dir, _env_file=None)
    yield Role(owner, settings)
    await close_database()


@pytest.mark.parametrize("destination", ["tables", "files", "purge"])
@pytest.mark.parametrize("step", [2, 300], ids=["dense", "sparse"])
async def test_the_role_archives(role: Role, destination: str, step: int) -> None:
    await make_tasks(1000, deleted=range(0, 1000, step))
    await role.switch()
    report = await archive(role.settings, destination=destination, connections=2)
    assert (report.moved, report.left) == ({"tasks": len(range(0, 1000, step))}, {})
    given = await admitted("ada")
    await ledger.finish(given, Outcome("succeeded", report=report.model_dump(mode="json")))


FORBIDDEN = (
    "UPDATE tasks SET title = 'other'",
    "INSERT INTO tasks (id, title, user_id) SELECT id, title, user_id FROM tasks",
    "UPDATE tasks_archive SET title = 'other'",
    "DELETE FROM tasks_archive",
    "DELETE FROM archive_parts",
    "SELECT hashed_password FROM users",
    "DELETE FROM users",
    "DELETE FROM job_runs",
    "UPDATE job_attempts SET outcome = 'x'",
    "UPDATE controls SET max_running = 1",
    "SELECT * FROM import_rejects",
    "DELETE FROM erasures",
    "DROP TABLE tasks_archive",
    "TRUNCATE TABLE tasks",
    "CREATE TABLE mine (id INTEGER)",
    "ALTER TABLE tasks ADD COLUMN mine INTEGER",
)


async def test_the_role_may_do_nothing_else(role: Role) -> None:
    await make_tasks(20, deleted=range(10))
    await archive(role.settings)
    await role.switch()
    for statement in FORBIDDEN:
        with pytest.raises(DBAPIError, match=r"(?i)denied|must be owner"):
            async with get_async_session() as session:
                await session.execute(text(statement))
    assert (await count(TASKS), await count(TASKS_ARCHIVE)) == (10, 10)
