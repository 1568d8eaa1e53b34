"""`demo`, as a process of its own that starts others."""

from pathlib import Path

from samples.make_tasks import make_rows
from tests.cli.command import run
from tests.cli.tables import Tables

CANARY = "postgresql://u:canary@127.0.0.1:1/production"


def test_the_demo_uses_its_own_parts_only(tmp_path: Path) -> None:
    """Whatever the environment and a .env say: the sample must not end up in a real database. What an earlier demo
    left is removed."""
    (tmp_path / ".env").write_text(f"DATABASE_URL={CANARY}\nREDIS_URL=redis://127.0.0.1:1/0\n")
    left_over = tmp_path / "data" / "demo" / "holdfast.db"
    left_over.parent.mkdir(parents=True)
    left_over.write_text("what an earlier demo left")
    ended = run("demo", "--json", folder=tmp_path, POSTGRES_HOST="127.0.0.1")
    bad = sum(row.code is not None for row in make_rows(1000, 7))
    assert ended.code == 0, ended.err
    document = ended.document
    counts = [document[key] for key in ("rows_read", "inserted", "rejected")]
    assert (document["state"], counts) == ("succeeded", [1000, 1000 - bad, bad])
    steps = [line for line in ended.err.splitlines() if line.startswith("==> ")]
    assert steps[0] == "==> an empty folder for the database and the queue: data/demo"
    assert "--map external_key=key" in steps[2]
    assert "Traceback" not in ended.err
    assert "canary" not in ended.err
    assert len(Tables.embedded(tmp_path / "data" / "demo").titles()) == 1000 - bad
    assert list((tmp_path / "data" / "demo" / "spool").iterdir()) == []


def test_what_lies_in_the_demos_place_and_cannot_be_removed_is_named(tmp_path: Path) -> None:
    place = tmp_path / "data" / "demo"
    place.parent.mkdir()
    place.write_text("not a folder")
    ended = run("demo", folder=tmp_path)
    assert ended.code == 2
    assert ended.line == (
        "HOLDFAST_DATA_DIR: data/demo, where an earlier demo lies, is a file; "
        "remove it as its owner, or name another folder"
    )
    assert place.read_text() == "not a folder"
