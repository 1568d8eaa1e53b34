"""docs/models.md and docs/migrations.md say what the code does."""

import asyncio
import re
import subprocess
import sys

import pytest

import db.base
import db.mixins
import db.schemas
import db.types
from db import migrate
from db.settings import DatabaseSettings
from tests.cli.command import invoke
from tests.docs.pages import Page
from tests.processes import CHECKOUT, clean_environment

PAGE = Page("models.md")
# In a process of its own: its models would stand in the metadata of all other tests.
RUN = """
import asyncio
from db.connection import close_database
from tests.docs.pages import Page

async def run():
    try:
        return await Page("models.md").run()
    finally:
        await close_database()

print("found" in asyncio.run(run()))
"""


def test_every_example_runs(database_url: str) -> None:
    asyncio.run(migrate.upgrade(DatabaseSettings(database_url=database_url, _env_file=None)))
    environment = clean_environment(DATABASE_URL=database_url)
    command = [sys.executable, "-W", "error", "-c", RUN]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_every_name_of_the_page_exists() -> None:
    modules = (db.base, db.mixins, db.types, db.schemas)
    named = set(re.findall(r"`([A-Z]\w*(?:Model|Mixin|Type|Text|JSON|Create|Read|Update))\b", PAGE.text))
    assert {"UUIDStringTimestampMixin", "FullAuditModel", "SmartJSON", "TaskUpdate"} <= named
    assert [name for name in named if not any(hasattr(module, name) for module in modules)] == []


def test_every_command_and_revision_is_told() -> None:
    page = Page("migrations.md")
    told = set(re.findall(r"`db (\w+)", page.text))
    assert told == {"upgrade", "downgrade", "current", "check", "reset", "seed"}
    assert all(invoke("db", command, "--help").code == 0 for command in told)
    revisions = [row[0] for row in page.rows("In pairs: expand, deploy, contract") if row[0].isdigit()]
    files = sorted(path.name[:4] for path in (CHECKOUT / "migrations" / "versions").glob("0*.py"))
    assert revisions == files


@pytest.mark.parametrize("page", ["models.md", "migrations.md"])
def test_links_lead_to_files(page: str) -> None:
    for link in re.findall(r"\]\(([\w-]+\.md)\)", Page(page).text):
        assert (CHECKOUT / "docs" / link).is_file()
