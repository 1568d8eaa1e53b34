"""The sample and the program that writes it: reproducible, believable, wrong exactly where it says."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samples import make_tasks
from samples.make_tasks import ExpectedCounts, Row, Task, make_rows, write_tasks

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "samples" / "tasks.csv"
PROGRAM = ROOT / "samples" / "make_tasks.py"
KNOWN_STATES = {"PENDING", "IN_PROGRESS", "COMPLETED", "CANCELLED"}


def run_program(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], capture_output=True, check=False, env={**os.environ, **environment}
    )


def good_tasks(rows: list[Row]) -> list[Task]:
    return [Task(*row.fields) for row in rows if row.code is None]


def broken(fault: str, count: int = 4000) -> list[tuple[str, ...]]:
    code = make_tasks.REJECT_CODES[fault]
    return [row.fields for row in make_rows(count, 11) if row.code == code]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(make_rows(1000, 7))


def test_the_file_in_the_repository_is_what_the_program_writes() -> None:
    made = run_program("--rows", "1000", "--seed", "7")
    assert made.returncode == 0, made.stderr
    assert made.stdout == SAMPLE.read_bytes(), (
        "samples/tasks.csv is not what samples/make_tasks.py writes: "
        "run `python samples/make_tasks.py --rows 1000 --seed 7 > samples/tasks.csv`"
    )


def test_the_counts_of_the_file_in_the_repository() -> None:
    expected = write_tasks(io.StringIO(newline=""), 1000, 7)
    assert expected == ExpectedCounts(
        rows=1000,
        good=960,
        rejected={
            "string_too_long": 5,
            "string_too_short": 5,
            "enum": 5,
            "timezone_aware": 5,
            "datetime_from_date_parsing": 4,
            "too_few_fields": 4,
            "too_many_fields": 4,
            "duplicate_key": 4,
            "nul_character": 4,
        },
    )


def test_the_readme_of_the_samples_tells_the_same_counts() -> None:
    readme = (ROOT / "samples" / "README.md").read_text(encoding="utf-8")
    expected = write_tasks(io.StringIO(newline=""), 1000, 7)
    for code, count in expected.rejected.items():
        assert f"| `{code}` | {count} |" in readme
    for field, column in make_tasks.FIELD_MAP.items():
        assert f"--map {field}={column}" in readme


def test_python_reads_back_exactly_the_rows_that_were_made(rows: list[Row]) -> None:
    with SAMPLE.open(encoding="utf-8", newline="") as file:
        read = list(csv.reader(file, strict=True))
    assert read[0] == list(make_tasks.FIELD_MAP.values()) == list(Task._fields)
    assert read[1:] == [list(row.fields) for row in rows]


def test_the_bytes_depend_on_nothing_but_the_options() -> None:
    plain = run_program("--rows", "300", "--seed", "3")
    elsewhere = run_program("--rows", "300", "--seed", "3", PYTHONHASHSEED="42", LC_ALL="C", PYTHONIOENCODING="latin-1")
    other_seed = run_program("--rows", "300", "--seed", "4")
    assert plain.stdout == elsewhere.stdout
    assert plain.stdout != other_seed.stdout


def test_good_rows_are_good(rows: list[Row]) -> None:
    tasks = good_tasks(rows)
    assert len({task.key for task in tasks}) == len(tasks)
    for task in tasks:
        assert 1 <= len(task.summary) <= 255
        assert task.summary.strip()
        assert task.state in KNOWN_STATES
        assert "\x00" not in "".join(task)
        assert bool(task.done_at) == (task.state == "COMPLETED")
        if task.done_at:
            assert datetime.fromisoformat(task.done_at).utcoffset() is not None


@pytest.mark.parametrize(
    "piece",
    ["\n", "\r\n", '"', ",", "\t", "\u00a0", "\\N", "\\.", "🐘", "\u200d", "\u0301", "データ", "резерв", "النسخ"],
)
def test_good_rows_hold_what_careless_readers_damage(rows: list[Row], piece: str) -> None:
    assert any(piece in task.summary or piece in task.details for task in good_tasks(rows))


def test_good_rows_hold_the_special_values(rows: list[Row]) -> None:
    tasks = good_tasks(rows)
    assert {"", "NULL"} <= {task.details for task in tasks}
    assert {task.state for task in tasks} == KNOWN_STATES
    assert any(len(task.summary) == 255 for task in tasks)
    assert any(task.summary != task.summary.strip() for task in tasks)
    assert any(task.details != task.details.strip() for task in tasks)


def test_every_fault_has_a_code_and_a_way_to_make_it() -> None:
    assert make_tasks.BREAK.keys() == make_tasks.REJECT_CODES.keys()


def test_long_and_empty_titles() -> None:
    assert {len(fields[1]) for fields in broken("long title")} == {300}
    assert {fields[1] for fields in broken("empty title")} == {""}


def test_unknown_states() -> None:
    states = {fields[3] for fields in broken("unknown status")}
    assert states
    assert states.isdisjoint(KNOWN_STATES)


def test_naive_dates_are_dates_without_an_offset() -> None:
    dates = [fields[4] for fields in broken("naive date")]
    assert dates
    assert all(datetime.fromisoformat(date).utcoffset() is None for date in dates)


def test_absurd_dates_are_no_dates() -> None:
    dates = [fields[4] for fields in broken("absurd date")]
    assert "2024-13-45T99:00:00Z" in dates
    for date in dates:
        with pytest.raises(ValueError, match=r".+"):
            datetime.fromisoformat(date)


def test_numbers_of_fields() -> None:
    assert {len(fields) for fields in broken("too few fields")} == {2, 3, 4, 5}
    assert {len(fields) for fields in broken("too many fields")} == {7, 8, 9}


def test_nul_characters() -> None:
    assert all("\x00" in fields[2] for fields in broken("NUL character"))


def test_a_repeated_key_comes_after_a_good_row_with_the_same_key_and_other_content() -> None:
    good: dict[str, tuple[int, tuple[str, ...]]] = {}
    distances = []
    for index, row in enumerate(make_rows(4000, 11)):
        if row.code is None:
            good[row.fields[0]] = (index, row.fields)
        elif row.code == make_tasks.REJECT_CODES["repeated key"]:
            first_index, first_fields = good[row.fields[0]]
            assert first_fields != row.fields
            distances.append(index - first_index)
    assert min(distances) < 5
    assert max(distances) > 1000


@given(count=st.integers(0, 300), seed=st.integers(), bad_every=st.none() | st.integers(2, 320))
def test_the_counts_are_known_before_a_row_is_made(count: int, seed: int, bad_every: int | None) -> None:
    made = list(make_rows(count, seed, bad_every=bad_every))
    bad = count // bad_every if bad_every else 0
    assert len(made) == count
    codes = list(make_tasks.REJECT_CODES.values())
    assert Counter(row.code for row in made if row.code) == Counter(codes[n % len(codes)] for n in range(bad))
    expected = write_tasks(io.StringIO(newline=""), count, seed, bad_every=bad_every)
    assert (expected.rows, expected.good, sum(expected.rejected.values())) == (count, count - bad, bad)


def test_the_program_tells_the_counts_on_standard_error() -> None:
    made = run_program("--rows", "20", "--bad-every", "10")
    assert json.loads(made.stderr) == {
        "rows": 20,
        "good": 18,
        "rejected": {"string_too_long": 1, "string_too_short": 1},
    }
    assert json.loads(run_program("--rows", "20", "--clean").stderr) == {"rows": 20, "good": 20, "rejected": {}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rows", "-1"), b"rows is -1: it must not be negative; ask for 0 or more"),
        (("--bad-every", "1"), b"bad_every is 1: it must be at least 2; use 2 to break every second row"),
        (("--bad-every", "5", "--clean"), b"not allowed with argument"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_written(arguments: tuple[str, ...], message: bytes) -> None:
    made = run_program(*arguments)
    assert made.returncode == 2
    assert made.stdout == b""
    assert message in made.stderr


def test_a_reader_that_stops_early_is_no_traceback() -> None:
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "--rows", "50000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"key,")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 1
