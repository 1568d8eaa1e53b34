"""What a person sees on a terminal, and what a program is spared."""

import asyncio
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError

from db.connection import close_database, initialize_database
from db.errors import DatabaseUnavailable
from db.repositories import run_list
from db.settings import DatabaseSettings
from tests.cli.command import invoke
from tests.cli.tables import Tables
from tests.imports.files import write
from tests.processes import clean_environment
from worker.cli import follow
from worker.cli.terminal import Failure
from worker.settings import Settings

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
RUN_ID = UUID("01900000-0000-7000-8000-000000000000")


def read_terminal(descriptor: int) -> str:
    """Returns everything that a terminal was sent until its last writer has gone."""
    received = b""
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:  # Linux's way to say that nobody writes any more
            return received.decode()
        if not chunk:
            return received.decode()
        received += chunk


def test_a_terminal_shows_a_bar_with_counts(tables: Tables, data_dir: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "title\n" + "x\n" * 3000 + '""\n')
    control, terminal = pty.openpty()
    environment = clean_environment(HOLDFAST_DATA_DIR=str(data_dir), TERM="xterm-256color", COLUMNS="120", LINES="40")
    process = subprocess.Popen(
        [sys.executable, "-m", "worker", "import", str(path), "--batch-rows", "100"],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
    )
    os.close(terminal)
    shown = ESCAPES.sub("", read_terminal(control))
    os.close(control)
    report, _ = process.communicate()
    assert process.returncode == 0
    assert "━━━━" in shown
    assert "6.0/6.0 kB" in shown
    assert "rows_read 3,001  inserted 3,000  rejected 1" in shown
    assert "[info" not in shown
    assert [line.split()[0] for line in report.splitlines()] == [
        "run_id",
        "state",
        "rows_read",
        "inserted",
        "updated",
        "unchanged",
        "skipped",
        "rejected",
        "rejects_file",
        "duration_s",
        "rows_per_s",
    ]


@pytest.mark.parametrize("words", [("import",), ("enqueue", "import_tasks", "--wait")], ids=["import", "enqueue"])
@pytest.mark.parametrize("level", [None, "info"], ids=["nothing said", "LOG_LEVEL=info"])
def test_logs_are_for_those_who_ask(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], level: str | None
) -> None:
    monkeypatch.setenv("IMPORT_ROOTS", str(tmp_path))
    if level is not None:
        monkeypatch.setenv("LOG_LEVEL", level)
    path = write(tmp_path, "title\none\n")
    ended = invoke(*words, path if words == ("import",) else f"source={path}", "--json")
    assert ended.document["inserted"] == 1
    assert ("run succeeded" in ended.err) == (level is not None)
    assert bool(ended.err) == (level is not None)


def test_debug_lets_errors_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/x")
    monkeypatch.setenv("DEBUG", "true")
    with pytest.raises(DatabaseUnavailable):
        invoke("runs", "list")


def test_an_attempt_that_failed_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    async def update_twice() -> None:
        notes = follow._Notes(Settings(_env_file=None), RUN_ID, inline=True)
        due_at = datetime(2026, 1, 31, 8, 30, 5, tzinfo=UTC)
        retry: Any = SimpleNamespace(
            state="waiting", reason="retry", attempts=1, error={"message": "the disk is full"}, due_at=due_at
        )
        await notes.update(retry)
        await notes.update(retry)

    asyncio.run(update_twice())
    told = "attempt 1 failed (the disk is full); it is tried again at 08:30:05 UTC\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("returns", [True, False])
async def test_a_database_that_goes_away_is_asked_again(
    tables: Tables, monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    asked = 0

    async def get_run(*_: object) -> str:
        nonlocal asked
        asked += 1
        if returns and asked == 3:
            return "the run"
        raise OperationalError("SELECT 1", {}, Exception("unable to open database file"))

    monkeypatch.setattr(run_list, "find_run", get_run)
    if not returns:
        monkeypatch.setattr(follow, "LEDGER_PATIENCE_S", 0.0)
    await initialize_database(DatabaseSettings(_env_file=None))
    try:
        if returns:
            assert await follow._look(RUN_ID) == "the run"
            return
        with pytest.raises(Failure) as failure:
            await follow._look(RUN_ID)
    finally:
        await close_database()
    assert str(failure.value) == (
        f"the database went away (unable to open database file) while run {RUN_ID} was waited for: it goes on when the"
        f" database is back; see `python -m worker runs show {RUN_ID}`"
    )
