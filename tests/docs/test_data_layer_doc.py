"""docs/data-layer.md says what the code does: its examples are run on each engine, its names exist."""

import asyncio
import re

import pytest

import db.connection
import db.copy
from db import migrate
from db.connection import DatabaseManager, close_database
from db.settings import DatabaseSettings
from tests.docs.pages import Page

PAGE = Page("data-layer.md")
NAMES = "Names elsewhere and here"


@pytest.fixture
def migrated(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    asyncio.run(migrate.upgrade(DatabaseSettings(_env_file=None)))


@pytest.mark.filterwarnings("ignore:This declarative base already contains a class with the same class name")
@pytest.mark.usefixtures("migrated")
async def test_every_example_runs() -> None:
    try:
        names = await PAGE.run()
    finally:
        await close_database()
    assert "board" in names  # the last section's too


def test_links_lead_somewhere() -> None:
    assert PAGE.links() <= PAGE.anchors()
    assert {name for name, _ in PAGE.pages()} == {"models.md", "migrations.md"}
    for name, place in PAGE.pages():
        assert place in {"", *Page(name).anchors()}


def exists(name: str) -> bool:
    owner, _, member = name.partition(".")
    if member:
        return owner == "DatabaseManager" and hasattr(DatabaseManager, member)
    if name.isupper():
        return name.lower() in DatabaseSettings.model_fields
    return any(hasattr(module, name) for module in (db.connection, db.copy, db.settings))


def test_every_name_of_ours_exists_and_none_of_the_others_does() -> None:
    rows = PAGE.rows(NAMES)
    assert len(rows) > 10
    for elsewhere, here in rows:
        assert [name for name in re.findall(r"`([\w.]+)`", here) if not exists(name)] == []
        assert [name for name in re.findall(r"`([\w.]+)`", elsewhere) if exists(name)] == []


def test_every_setting_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`((?:DATABASE|SQL|POSTGRES)_[A-Z_]+)`", PAGE.text))
    elsewhere = {name for row in PAGE.rows(NAMES) for name in re.findall(r"`(\w+)`", row[0])}
    assert {name.lower() for name in named - elsewhere} <= set(DatabaseSettings.model_fields)
