"""Slow queries are logged: the statement without values, how long it took, and for whom."""

import asyncio
import json
import logging
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from db.connection import DatabaseManager
from db.models import User
from db.query_log import LONGEST_STATEMENT, asked_by, redacted
from db.settings import DatabaseSettings
from jobs.context import RunContext
from jobs.settings import JobSettings
from tests.processes import WorkerProcess, clean_environment

RUN_ID = UUID("01a1fbc6-4e8c-7247-b0b0-10a34ca5dcf2")


@pytest.fixture
async def slow(settings: DatabaseSettings) -> AsyncIterator[DatabaseManager]:
    """A pool for which every query is a slow one."""
    manager = DatabaseManager(settings.model_copy(update={"database_slow_query_s": 1e-9}))
    yield manager
    await manager.close()


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "holdfast.database"]


async def test_a_slow_query_is_logged_with_its_run_and_without_values(
    slow: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    asked_by(RunContext(RUN_ID, "import_tasks", attempt=1, fence=1, settings=JobSettings()))
    async with slow.session() as session:
        await session.execute(select(User).where(User.username == "canary-93"))
        await session.execute(
            text("SELECT id FROM users WHERE username = 'canary-94' AND email = :email"), {"email": "c"}
        )
    first, second = [line for line in logged(caplog) if "FROM users" in line]
    assert first.startswith("slow query: 0.")
    assert f" s for import_tasks[{RUN_ID}]: SELECT users.id" in first
    assert second.partition("]: ")[2].startswith("SELECT id FROM users WHERE username = ? AND email = ")
    assert "canary" not in "".join(logged(caplog))
    record = next(record for record in caplog.records if "FROM users" in record.getMessage())
    assert record.levelno == logging.WARNING
    assert record.__dict__["asked_by"] == f"import_tasks[{RUN_ID}]"
    assert record.__dict__["duration_s"] >= 0


async def test_one_that_fails_or_is_cancelled_is_logged_too(
    slow: DatabaseManager, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(DBAPIError):
        await slow.execute_raw_sql("SELECT nothing_of_this_name FROM users")
    assert any("ended by" in line and "nothing_of_this_name" in line for line in logged(caplog))


async def test_tasks_of_other_runs_are_told_apart(slow: DatabaseManager, caplog: pytest.LogCaptureFixture) -> None:
    async def ask(name: str) -> None:
        asked_by(name)
        async with slow.session(read_only=True) as session:
            await session.execute(text(f"SELECT id AS {name} FROM users"))

    await asyncio.gather(ask("one"), ask("two"))
    lines = [line for line in logged(caplog) if "AS " in line]
    assert sorted(line.partition(" s for ")[2] for line in lines) == [
        "one: SELECT id AS one FROM users",
        "two: SELECT id AS two FROM users",
    ]


@pytest.mark.parametrize("threshold_s", [0.0, 60.0])
async def test_fast_ones_are_not(
    settings: DatabaseSettings, caplog: pytest.LogCaptureFixture, threshold_s: float
) -> None:
    manager = DatabaseManager(settings.model_copy(update={"database_slow_query_s": threshold_s}))
    await manager.execute_raw_sql("SELECT id FROM users")
    await manager.close()
    assert logged(caplog) == []


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT 'it''s' , 'a\\'b' FROM t", "SELECT ? , ? FROM t"),
        ("SELECT\n  a\n FROM t1 WHERE b = 12.5 AND c = $1", "SELECT a FROM t1 WHERE b = ? AND c = $1"),
        ("INSERT INTO t (a) VALUES ('cut", "INSERT INTO t (a) VALUES (?"),
        ("SELECT v FROM t WHERE a = %s", "SELECT v FROM t WHERE a = %s"),
    ],
)
def test_values_in_the_text_are_not_shown(statement: str, shown: str) -> None:
    assert redacted(statement) == shown


@given(st.text(alphabet="ab'\\\n \u00e4", max_size=50))
def test_no_quoted_secret_is_shown(noise: str) -> None:
    quoted = noise.replace("\\", "\\\\").replace("'", "''")
    assert "secret" not in redacted(f"SELECT '{quoted}secret' FROM t WHERE a = 'secret{quoted}'")


def test_a_long_statement_is_cut() -> None:
    assert len(redacted("SELECT " + "a, " * LONGEST_STATEMENT)) == LONGEST_STATEMENT + 3


def test_a_worker_says_for_which_run(migrated_sqlite: Path, tmp_path: Path) -> None:
    """A real one, for which every query is a slow one."""
    file = shutil.copy(migrated_sqlite, tmp_path / "holdfast.db")
    (tmp_path / "tasks.csv").write_text("title\ncanary-96\n", encoding="utf-8")
    environment = clean_environment(
        DATABASE_URL=f"sqlite:///{file}", HOLDFAST_DATA_DIR=str(tmp_path / "data"), DATABASE_SLOW_QUERY_S="0.0000001"
    )
    enqueue = ("import", str(tmp_path / "tasks.csv"), "--detach", "--json")
    with WorkerProcess(environment, tmp_path, arguments=enqueue, name="enqueue") as command:
        assert command.wait() == 0, command.text
    run_id = next(json.loads(line)["run_id"] for line in command.text.splitlines() if line.startswith("{"))
    with WorkerProcess(environment, tmp_path, arguments=("run", "--burst")) as worker:
        assert worker.wait() == 0, worker.text
    assert re.search(rf"slow query: \d+\.\d+ s for import_tasks\[{run_id}\]: INSERT INTO tasks ", worker.text)
    assert "canary" not in worker.text
