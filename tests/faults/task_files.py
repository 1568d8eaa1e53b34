"""Generated import files, and exactly what an import of one has to leave in the database."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

from holdfast.requests import ImportTasks
from samples.make_tasks import FIELD_MAP, REJECT_CODES, Row, Task, make_rows, write_tasks

REPEATED_KEY = REJECT_CODES["repeated key"]
HEADER_LINES = 1


@dataclass(frozen=True)
class TaskFile:
    """A file and its expected effects.

    With `keyed`, the unique `external_key` would turn a batch that is loaded twice into rejects. Without it nothing
    stands in the way of doubled rows, and the rows that repeat a key are good ones.
    """

    path: Path
    keyed: bool
    tasks: Counter[bytes]
    """Fingerprint of a task -> how often it must be there."""
    rejects: dict[int, str]
    """Line of a rejected row -> its code."""

    @property
    def counters(self) -> dict[str, int]:
        """What the ledger and the report have to count."""
        inserted, rejected = self.tasks.total(), len(self.rejects)
        counts = {"rows_read": inserted + rejected, "inserted": inserted, "rejected": rejected}
        return counts | {"updated": 0, "unchanged": 0, "skipped": 0}

    def request(self, source: Path | None = None, *, batch_rows: int = 1000) -> ImportTasks:
        """Returns the request that imports it, from a copy if one is given."""
        key_field = "external_key" if self.keyed else "metadata.key"
        mapping = {key_field if field == "external_key" else field: column for field, column in FIELD_MAP.items()}
        return ImportTasks(source=str(source or self.path), mapping=mapping, batch_rows=batch_rows)


def write_task_file(path: Path, rows: int, *, seed: int, keyed: bool = True) -> TaskFile:
    """Writes a file of `rows` rows, one in 25 of them bad; returns it with what it must lead to."""
    with path.open("w", encoding="utf-8", newline="") as file:
        counts = write_tasks(file, rows, seed)
    tasks: Counter[bytes] = Counter()
    rejects: dict[int, str] = {}
    for line, row in _rows_by_line(rows, seed):
        if row.code is None or (row.code == REPEATED_KEY and not keyed):
            tasks[_fingerprint_of(Task(*row.fields))] += 1
        else:
            rejects[line] = row.code
    if keyed:
        assert Counter(rejects.values()) == counts.rejected
    return TaskFile(path, keyed, tasks, rejects)


def fingerprint(
    key: str | None, title: str, description: str | None, status: str, completed_at: datetime | None, points: str
) -> bytes:
    """Returns a short name for a task's whole content; a changed character changes it."""
    instant = None if completed_at is None else completed_at.astimezone(UTC).isoformat()
    return blake2b(repr((key, title, description, status, instant, points)).encode(), digest_size=12).digest()


def _fingerprint_of(task: Task) -> bytes:
    completed_at = datetime.fromisoformat(task.done_at) if task.done_at else None
    return fingerprint(task.key, task.summary, task.details, task.state, completed_at, task.points)


def _rows_by_line(rows: int, seed: int) -> Iterator[tuple[int, Row]]:
    line = 1 + HEADER_LINES
    for row in make_rows(rows, seed):
        yield line, row
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerow(row.fields)
        line += written.getvalue().count("\n")
