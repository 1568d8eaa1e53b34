"""How long a batch is to hold its rows."""

import pytest

from db.archives.walks import Walk
from db.connection import DatabaseManager
from holdfast.requests import ArchiveDeleted
from jobs.archive_deleted.sizes import target_of
from jobs.archive_deleted.steps import Taken


def test_twenty_milliseconds_where_one_statement_moves_the_rows(manager: DatabaseManager) -> None:
    on_mariadb = manager.engine.dialect.name == "mariadb"
    assert target_of(ArchiveDeleted()) == (0.08 if on_mariadb else 0.02)
    assert target_of(ArchiveDeleted(batch_target_ms=5)) == 0.005


def test_what_comes_before_the_first_row_is_not_held_against_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.archive_deleted.steps.time.monotonic", lambda: 110.0)
    taken = Taken(Walk("keys"))
    taken.committed(began=100.0, locking=107.0)
    assert (taken.seconds, taken.held_s) == (10.0, 3.0)
