"""Write a believable, deliberately imperfect CSV of tasks: the sample of the demo, and test data of any size.

    python samples/make_tasks.py --rows 1000 --seed 7 > samples/tasks.csv

The same options write the same bytes under every Python: the generator draws by `Random.random()` alone, the one
method whose sequence Python promises to keep. Needs the standard library only.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import TYPE_CHECKING, NamedTuple, TextIO, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

T = TypeVar("T")

TITLE_LIMIT = 255
FIRST_DAY = datetime(2025, 1, 6, 6, 30, tzinfo=UTC)

# Task field -> column of the file, as `--map FIELD=COLUMN` of `python -m worker import` takes it.
FIELD_MAP = {
    "external_key": "key",
    "title": "summary",
    "description": "details",
    "status": "state",
    "completed_at": "done_at",
    "metadata.points": "points",
}

# Fault -> the code under which the importer rejects the row. Bad rows take the faults in this order, round and round.
REJECT_CODES = {
    "long title": "string_too_long",
    "empty title": "string_too_short",
    "unknown status": "enum",
    "naive date": "timezone_aware",
    "absurd date": "datetime_from_date_parsing",
    "too few fields": "too_few_fields",
    "too many fields": "too_many_fields",
    "repeated key": "duplicate_key",
    "NUL character": "nul_character",
}

ACTIONS = ("Rebuild", "Check", "Move", "Document", "Time", "Clean up", "Split", "Widen", "Review", "Restore a copy of")
OBJECTS = (
    "the index on orders (customer_id, placed_at)",
    "the nightly backup",
    'the view "open invoices"',
    "the read replica",
    "the slow query log",
    "the partition for last quarter",
    "the foreign key from payments to orders",
    "the connection pool",
    "the audit trail; keep 90 days",
    "the sequence behind ticket numbers",
)
PLACES = ("in staging", "on db-3", "before the release", "for the billing team", "after the failover", "in Zürich")
# Titles that a careless reader damages: edge whitespace, emoji, a combining accent, right-to-left text, markup.
ODD_TITLES = (
    "  Keep the two spaces before this title",
    "Keep the tab after this title\t",
    "\u00a0Check the no-break space\u00a0",
    "🔥 Replica lag above 30 s 🐘",
    "👩‍💻 Hand over the on-call phone",
    "Ve\u0301rifier l'espace disque, nœud 3",
    "データベースのバックアップを確認する",
    "检查慢查询日志",
    "Проверить резервную копию",
    "Έλεγχος αντιγράφων ασφαλείας",
    "افحص سجل النسخ الاحتياطي",
    "डेटाबेस का बैकअप जाँचें",
    "NULL",
    "<b>Not bold</b> & 'quoted', \"twice\"",
    "=SUM(A1:A9) stays text",
    "100 % of %s and {braces} and $1",
)
DETAILS = (
    "",
    "",
    "NULL",
    "Nothing special.",
    "Takes about ten minutes, no downtime, can wait until Monday.",
    "Steps:\n1. stop the writer\n2. run the check, twice\n3. start the writer\n",
    'The log says "canceling statement due to lock timeout", nothing more.',
    'Run it by hand first:\n\n    SELECT "id", "state"\n    FROM "orders"\n    WHERE note = \'late, again\';\n',
    "Written on Windows,\r\nso the lines end\r\nin two characters.",
    "  starts with spaces and ends with them  ",
    "\n\nonly after two empty lines",
    "Path C:\\backup\\new, escape \\N, end mark:\n\\.\n",
    '{"retries": 3, "hosts": ["db-1", "db-2"]}',
    "tabs\tbetween\twords; semicolons; pipes | too",
    '"Quoted from end to end"',
    "Freigabe durch Jürgen Groß: 2 € je Lauf ✅",
    "夜間のバックアップが失敗しました。\n再実行してください。",
    "Сначала реплика, потом основной сервер.",
    "العودة إلى النسخة السابقة، ثم الفحص.",
    "family 👨‍👩‍👧‍👦 and flag 🇨🇭 are one sign each",
)
STATES = ("PENDING", "PENDING", "IN_PROGRESS", "COMPLETED", "COMPLETED", "CANCELLED")
UNKNOWN_STATES = ("DONE", "BLOCKED", "WAITING_FOR_VENDOR", "N/A")
OFFSETS = ("Z", "+00:00", "+01:00", "-05:00", "+05:30", "+12:45")
ABSURD_DATES = ("2024-13-45T99:00:00Z", "2025-02-30T10:00:00+01:00", "yesterday", "31.12.2025 10:00")
POINTS = ("1", "2", "3", "5", "8", "13", "0.5", "")


class Task(NamedTuple):
    """The six fields of a row, in the order of the columns."""

    key: str
    summary: str
    details: str
    state: str
    done_at: str
    points: str


@dataclass(frozen=True)
class Row:
    """One row of the file: its fields as they are written, and the code under which it is rejected (None: good)."""

    fields: tuple[str, ...]
    code: str | None


@dataclass(frozen=True)
class ExpectedCounts:
    """What an import of the file has to report: all rows, the good ones, and the rejected ones by code."""

    rows: int
    good: int
    rejected: dict[str, int]


class Draw:
    """Picks from a seeded sequence, the same one under every Python."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random  # noqa: S311 - sample data, not a secret

    def below(self, limit: int) -> int:
        """Return a whole number from 0 to `limit` - 1."""
        return int(self._random() * limit)

    def one_of(self, choices: Sequence[T]) -> T:
        """Return one of `choices`, which must not be empty."""
        return choices[self.below(len(choices))]


def make_rows(rows: int, seed: int, *, bad_every: int | None = 25) -> Iterator[Row]:
    """Return an iterator over `rows` rows drawn by `seed`.

    Exactly one row of each full group of `bad_every` is bad, at a drawn place in it; none when `bad_every` is None.
    Raises ValueError when `rows` is negative or `bad_every` is below 2.
    """
    if rows < 0:
        raise ValueError(f"rows is {rows}: it must not be negative; ask for 0 or more")
    if bad_every is not None and bad_every < 2:
        raise ValueError(f"bad_every is {bad_every}: it must be at least 2; use 2 to break every second row")
    return _rows(Draw(seed), rows, bad_every)


def write_tasks(file: TextIO, rows: int, seed: int, *, bad_every: int | None = 25) -> ExpectedCounts:
    """Write a header and `rows` rows to `file` and return what an import of it has to count.

    `file` must be opened with `encoding="utf-8", newline=""`. The other parameters and errors are those of `make_rows`.
    """
    made = make_rows(rows, seed, bad_every=bad_every)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(Task._fields)
    codes: Counter[str | None] = Counter()
    for row in made:
        writer.writerow(row.fields)
        codes[row.code] += 1
    good = codes.pop(None, 0)
    return ExpectedCounts(rows, good, {code: count for code, count in codes.items() if code})


def _rows(draw: Draw, rows: int, bad_every: int | None) -> Iterator[Row]:
    newest = ""
    older: list[str] = []  # one good key from before each bad row
    for index, fault in enumerate(_faults(draw, rows, bad_every)):
        task = _good_task(draw, index)
        if fault is None:
            newest = task.key
            yield Row(task, None)
            continue
        older += [newest] if newest else []
        if fault == "repeated key":
            # Half of them repeat a key of the same batch, the others mostly one from many batches ago.
            task = task._replace(key=draw.one_of((newest, draw.one_of(older))))
        yield Row(BREAK[fault](draw, task), REJECT_CODES[fault])


def _faults(draw: Draw, rows: int, bad_every: int | None) -> Iterator[str | None]:
    """Yield for each row its fault, None for a good one."""
    faults = cycle(REJECT_CODES)
    group_rows = bad_every or max(rows, 1)
    for start in range(0, rows, group_rows):
        is_full = bad_every is not None and start + group_rows <= rows
        bad_at = start + draw.below(group_rows) if is_full else None
        for index in range(start, min(start + group_rows, rows)):
            yield next(faults) if index == bad_at else None


def _good_task(draw: Draw, index: int) -> Task:
    state = draw.one_of(STATES)
    done_at = _instant(draw, index) + draw.one_of(OFFSETS) if state == "COMPLETED" else ""
    return Task(f"OPS-{index + 1}", _title(draw), draw.one_of(DETAILS), state, done_at, draw.one_of(POINTS))


def _title(draw: Draw) -> str:
    kind = draw.below(100)
    if kind < 12:
        return draw.one_of(ODD_TITLES)
    title = f"{draw.one_of(ACTIONS)} {draw.one_of(OBJECTS)} {draw.one_of(PLACES)}"
    return title.ljust(TITLE_LIMIT, "!") if kind == 12 else title


def _instant(draw: Draw, index: int) -> str:
    """Return a date and time without an offset, one in four with a fraction of a second."""
    moment = FIRST_DAY + timedelta(minutes=index % 500_000, microseconds=draw.one_of((0, 0, 0, 250_000)))
    return moment.replace(tzinfo=None).isoformat()


def _naive_date(draw: Draw, task: Task) -> Task:
    return task._replace(state="COMPLETED", done_at=_instant(draw, draw.below(500_000)))


def _absurd_date(draw: Draw, task: Task) -> Task:
    return task._replace(state="COMPLETED", done_at=draw.one_of(ABSURD_DATES))


def _unknown_status(draw: Draw, task: Task) -> Task:
    return task._replace(state=draw.one_of(UNKNOWN_STATES), done_at="")


# Fault -> what it does to a good row. A broken row has exactly one fault, so that its code is certain.
BREAK: dict[str, Callable[[Draw, Task], tuple[str, ...]]] = {
    "long title": lambda _, task: task._replace(summary=task.summary.ljust(300, ".")),
    "empty title": lambda _, task: task._replace(summary=""),
    "unknown status": _unknown_status,
    "naive date": _naive_date,
    "absurd date": _absurd_date,
    "too few fields": lambda draw, task: task[: 2 + draw.below(4)],
    "too many fields": lambda draw, task: (*task, *("",) * draw.below(3), "a note beside the table"),
    "repeated key": lambda _, task: task._replace(details="The same key as another row, with other content."),
    "NUL character": lambda _, task: task._replace(details="Pasted from a dump:\x00\x00 binary"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the CSV to standard output and the expected counts, as one line of JSON, to standard error."""
    parser = argparse.ArgumentParser(description="Write a deliberately imperfect CSV of tasks to standard output.")
    parser.add_argument("--rows", type=int, default=1000, help="rows without the header (default: 1000)")
    parser.add_argument("--seed", type=int, default=7, help="the same seed writes the same bytes (default: 7)")
    faults = parser.add_mutually_exclusive_group()
    faults.add_argument("--bad-every", type=int, default=25, metavar="N", help="one bad row in N (default: 25)")
    faults.add_argument("--clean", action="store_true", help="no bad rows")
    options = parser.parse_args(arguments)
    bad_every = None if options.clean else options.bad_every
    try:
        # Whatever the locale and the platform say: UTF-8, and line ends as they are.
        with open(sys.stdout.fileno(), "w", encoding="utf-8", newline="", closefd=False) as file:
            expected = write_tasks(file, options.rows, options.seed, bad_every=bad_every)
    except ValueError as error:
        parser.error(str(error))
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; without this Python complains again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    sys.stderr.write(json.dumps(asdict(expected)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
