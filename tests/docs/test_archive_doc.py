"""docs/archive.md shows what the commands print: they are run again, and its Python is, too."""

import asyncio
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import insert

from db.connection import close_database, get_async_session, initialize_database
from db.models import Erasure
from db.settings import DatabaseSettings
from holdfast.requests import RefusedRow
from tests.cli.command import PROGRAM, invoke
from tests.docs.archive_page import fill
from tests.processes import CHECKOUT, clean_environment

PAGE = (CHECKOUT / "docs" / "archive.md").read_text(encoding="utf-8")
CODES = {"exists", "unique", "parent_missing", "erased", "not_archived", "refused"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def alike(text: str) -> str:
    """Returns a text without what differs from run to run: ids of runs, times, measured figures."""
    text = re.sub(r"\b(?!0198c0de)01[0-9a-f]{6}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "RUN", text)
    text = re.sub(r"\d{4}-\d\d-\d\d( \d\d:\d\d)?", "TIME", text)
    # Where nothing took any time worth telling, these are not told.
    text = re.sub(r"^(estimated_s|paused_s) +[\d,.]+\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^(longest_batch_ms|duration_s|rows_per_s)( +)[\d,.]+$", r"\1\2N", text, flags=re.MULTILINE)


def test_the_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            words = shlex.split(command.removeprefix(f"{PROGRAM} "))
            ended = invoke(*words)
            printed = ended.out + ended.err
            assert alike(printed) == alike(shown), command
            assert ended.code == ("refused:" in shown), command


async def no_backup() -> None:
    """Restores nothing."""


async def test_the_example_of_a_restored_backup_runs(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec(blocks("python")[0], names)  # noqa: S102 - our own page
    await asyncio.to_thread(fill, tmp_path / "data")
    key = "0198c0de-0000-7000-8000-000000000006"
    await initialize_database(DatabaseSettings(_env_file=None, holdfast_data_dir=tmp_path / "data"))
    try:
        async with get_async_session() as session:
            await session.execute(
                insert(Erasure).values(table_name="tasks", row_key=key, reason="-", erased_at=datetime.now(UTC))
            )
        restore = names["restore_without_the_erased"]
        assert callable(restore)
        assert await restore(no_backup) == ({"tasks": 1}, ())
    finally:
        await close_database()


def test_the_example_of_a_model_makes_an_archive() -> None:
    # In a process of its own: here it would be among the models of all other tests.
    code = f"{blocks('python')[1]}\nprint(INVOICES_ARCHIVE, *INVOICES_ARCHIVE.columns.keys())"
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, env=clean_environment(), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("invoice_archive id number ")
    assert done.stdout.endswith(" archived_at archive_run_id\n")


def test_each_code_of_a_conflict_is_explained() -> None:
    table = PAGE.partition("## Bring back")[2].partition("## Erase")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == CODES
    assert RefusedRow.model_fields.keys() == {"key", "code", "message"}
