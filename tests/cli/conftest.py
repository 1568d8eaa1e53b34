"""Fixtures of the tests of the command line."""

import shutil
from pathlib import Path

import pytest

from tests.cli.tables import Tables


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with all tables and no rows, to be copied: migrating takes longer."""
    path = tmp_path_factory.mktemp("migrated") / "holdfast.db"
    Tables.embedded(path.parent).upgrade()
    return path


@pytest.fixture
def data_dir(tmp_path: Path, migrated_file: Path) -> Path:
    """The data folder of the embedded database and queue, which every command of the test uses by default."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    shutil.copy(migrated_file, folder)
    return folder


@pytest.fixture
def tables(data_dir: Path) -> Tables:
    """The tables of `data_dir`."""
    return Tables.embedded(data_dir)
