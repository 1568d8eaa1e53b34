"""`demo`, as a process of its own that starts others."""

from pathlib import Path

from samples.make_tasks import make_rows
from tests.cli.command import run
from tests.cli.tables import Tables

CANARY = "postgresql://u:canary@127.0.0.1:1/production"


def test_the_demo_uses_its_own_parts_only(tmp_path: Path) -> None:
    """Whatever the environment says: the sample must not end up in a real database; and a second demo begins anew."""
    left_over = tmp_path / "data" / "demo" / "holdfast.db"
    left_over.parent.mkdir(parents=True)
    left_over.write_text("what an earlier demo left")
    settings = {"DATABASE_URL": CANARY, "POSTGRES_HOST": "127.0.0.1", "REDIS_URL": "redis://127.0.0.1:1/0"}
    ended = run("demo", "--json", folder=tmp_path, **settings)
    bad = sum(row.code is not None for row in make_rows(1000, 7))
    assert ended.code == 0, ended.err
    document = ended.document
    counts = [document[key] for key in ("rows_read", "inserted", "rejected")]
    assert (document["state"], counts) == ("succeeded", [1000, 1000 - bad, bad])
    steps = [line for line in ended.err.splitlines() if line.startswith("==> ")]
    assert steps[0] == f"==> an empty folder for the database and the queue: {tmp_path}/data/demo"
    assert "--map external_key=key" in steps[2]
    assert "Traceback" not in ended.err
    assert "canary" not in ended.err
    assert len(Tables.embedded(tmp_path / "data" / "demo").titles()) == 1000 - bad
    assert list((tmp_path / "data" / "demo" / "spool").iterdir()) == []
