"""`runs list` and `runs show`."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import insert, update

from db.models import JobRun
from tests.cli.command import invoke
from tests.cli.tables import Tables

FIRST = datetime(2026, 1, 31, 8, 0, tzinfo=UTC)
RUN_KEYS = {
    *("run_id", "state", "kind", "reason", "queue", "attempts", "crashes", "worker_id", "request", "counters"),
    *("error", "enqueued_at", "due_at", "started_at", "finished_at", "starts"),
}


def run_id(number: int) -> str:
    return f"01900000-0000-7000-8000-{number:012}"


@pytest.fixture
def seven_runs(tables: Tables) -> None:
    """One run a minute: five waiting, one failed, one of another kind in another queue."""
    rows: list[dict[str, Any]] = []
    for number in range(7):
        instant = FIRST + timedelta(minutes=number)
        row = {"id": UUID(run_id(number)), "job_id": f"job {number}", "kind": "import_tasks", "queue": "arq:queue"}
        row |= {"request": {"source": f"/imports/{number}.csv"}, "state": "waiting", "reason": None, "error": None}
        rows.append({**row, "enqueued_at": instant, "due_at": instant})
    rows[2] |= {"state": "failed", "error": {"type": "truncated", "message": "the file is cut off"}}
    rows[3] |= {"kind": "prune", "queue": "slow", "reason": "scheduled"}
    tables.change(insert(JobRun).values(rows))


def listed(*words: str) -> tuple[list[int], str | None, int]:
    document = invoke("runs", "list", *words, "--json").document
    assert list(document) == ["runs", "next_cursor", "total"]
    numbers = [int(found["run_id"][-4:]) for found in document["runs"]]
    return numbers, document["next_cursor"], document["total"]


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ([], [6, 5, 4, 3, 2, 1, 0]),
        (["--state", "failed"], [2]),
        (["--state", "succeeded"], []),
        (["--kind", "prune"], [3]),
        (["--queue", "slow"], [3]),
        (["--queue", "slow", "--state", "failed"], []),
        (["--since", "2026-01-31T08:05:00Z"], [6, 5]),
        (["--since", "2026-01-31T09:05:00+01:00"], [6, 5]),
        (["--since", "2026-01-31T08:05:00"], [6, 5]),
        (["--until", "2026-01-31T08:02:00Z"], [1, 0]),
        (["--since", "2026-01-31 08:01", "--until", "2026-01-31 08:03"], [2, 1]),
        (["--since", "2027-01-01"], []),
    ],
    ids=lambda value: " ".join(map(str, value)) or "all",
)
def test_filters(seven_runs: None, words: list[str], numbers: list[int]) -> None:
    assert listed(*words) == (numbers, None, len(numbers))


def test_queues_are_named_without_their_namespace(
    seven_runs: None, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.change(update(JobRun).where(JobRun.kind == "prune").values(queue="staging:slow"))
    monkeypatch.setenv("HOLDFAST_NAMESPACE", "staging")
    assert listed("--queue", "slow") == listed("--queue", "staging:slow") == ([3], None, 1)
    for words in (["queues", "pause", "slow"], ["limits", "set", "queue", "slow", "2"]):
        assert invoke(*words).code == 0
    assert invoke("queues", "list", "--json").document == {"queues": [{"name": "staging:slow", "paused": True}]}
    limit = {"scope": "queue", "name": "staging:slow", "max_running": 2}
    assert invoke("limits", "list", "--json").document == {"limits": [limit]}


def test_pages(seven_runs: None) -> None:
    pages: list[list[int]] = []
    cursor: list[str] = []
    while True:
        numbers, following, total = listed("--limit", "3", *cursor)
        assert total == 7
        pages.append(numbers)
        if following is None:
            break
        cursor = ["--cursor", following]
    assert pages == [[6, 5, 4], [3, 2, 1], [0]]
    assert listed("--limit", "7")[1] is None


def test_a_list_for_eyes(seven_runs: None) -> None:
    ended = invoke("runs", "list", "--limit", "5")
    assert ended.out.splitlines()[3:] == [
        f"{run_id(3)}  waiting      prune           2026-01-31 08:03:00  scheduled",
        f"{run_id(2)}  failed       import_tasks    2026-01-31 08:02:00  the file is cut off",
    ]
    assert ended.err == f"5 of 7 runs; next page: --cursor {run_id(2)}\n"


def test_an_empty_ledger(tables: Tables) -> None:
    assert listed() == ([], None, 0)
    ended = invoke("runs", "list")
    assert (ended.code, ended.out, ended.err) == (0, "", "0 of 0 runs\n")


def test_one_run(seven_runs: None) -> None:
    document = invoke("runs", "show", run_id(2), "--json").document
    assert set(document) == {*RUN_KEYS, "attempts"}
    assert (document["state"], document["error"]["type"]) == ("failed", "truncated")
    assert document["enqueued_at"] == "2026-01-31T08:02:00+00:00"
    assert invoke("runs", "show", run_id(2)).out.splitlines() == [
        f"run {run_id(2)} (import_tasks): failed",
        "  error: the file is cut off (truncated)",
        '  request       {"source": "/imports/2.csv"}',
    ]


def test_a_run_that_has_ended(tables: Tables, tmp_path: Path) -> None:
    path = tmp_path / "tasks.csv"
    path.write_text("title\n" + "x\n" * 1234)
    done = invoke("import", path, "--json").document
    document = invoke("runs", "show", done["run_id"], "--json").document
    assert document["state"] == "succeeded"
    assert {key: document[key] for key in done} == done
    (attempt,) = document["attempts"]
    assert (attempt["attempt"], attempt["start"], attempt["outcome"], attempt["error"]) == (1, 1, "succeeded", None)
    shown = invoke("runs", "show", done["run_id"]).out
    assert "  inserted      1,234\n" in shown
    assert "  attempt 1 (start 1): succeeded after " in shown


WRONG = {
    "runs show 1234": "'1234' is no run id: it reads like 0198c0de-0000-7000-8000-000000000000",
    "runs list --cursor next": "'next' is no run id: it reads like 0198c0de-0000-7000-8000-000000000000",
    "runs list --since soon": "--since 'soon' is no time: write it as 2026-01-31T08:30:00+01:00",
    "runs list --until 9999-12-31T23:59:59-14:00": "--until '9999-12-31T23:59:59-14:00' is no time: write it as"
    " 2026-01-31T08:30:00+01:00",
    "runs list --limit 0": "Invalid value for '--limit': 0 is not in the range 1<=x<=1000; see"
    " `python -m worker runs list --help`",
    "runs list --state lost": "Invalid value for '--state': 'lost' is not one of 'waiting', 'running', 'succeeded',"
    " 'failed', 'cancelled', 'quarantined'; see `python -m worker runs list --help`",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_words(tables: Tables, words: str) -> None:
    ended = invoke(*words.split())
    assert (ended.code, ended.line) == (2, WRONG[words])


def test_an_unknown_run(tables: Tables) -> None:
    ended = invoke("runs", "show", run_id(1), "--json")
    assert ended.code == 1
    assert ended.line == f"run {run_id(1)} is not in the ledger: `python -m worker runs list` shows those that are"
