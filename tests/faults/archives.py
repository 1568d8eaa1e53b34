"""The worker of an archive is killed at random moments; each row must be in one place, as it was, and counted once."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast
from uuid import UUID

from sqlalchemy import Table, insert, select

from db.connection import DatabaseManager
from db.fields import json_value
from db.models import TASKS_ARCHIVE, Task, User
from holdfast.ids import uuid7
from holdfast.requests import ArchiveDeleted, ArchiveReport
from jobs.archive_deleted.folders import MANIFEST
from jobs.archive_deleted.part_files import PartFile, read_part
from tests.archive.runs import IN_ONE_STATEMENT, LONG_AGO, task_row
from tests.faults.kills import Moment, kill_through
from tests.faults.place import Place
from tests.faults.watch import Watch

TASKS = cast("Table", Task.__table__)
LIVING_EVERY = 4
"""One row in so many is not due."""
Destination = Literal["tables", "files"]
Rows = dict[UUID, dict[str, Any]]


@dataclass
class ArchiveTrial:
    """What came of it."""

    landed: int = 0
    seconds: float = 0.0
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    """Rows that are not what they were, or not where they belong."""
    wrong: list[str] = field(default_factory=list)
    """Counters, files and reports that do not say what there is."""

    @property
    def problems(self) -> list[str]:
        """All that was found."""
        counts = {"lost": self.lost, "doubled": self.doubled, "changed": self.changed}
        return [f"{count} rows {name}" for name, count in counts.items() if count] + self.wrong


async def kill_archives(
    place: Place,
    rows: int,
    moments: Sequence[Moment],
    *,
    destination: Destination,
    batch_rows: int,
    connections: int = 1,
) -> ArchiveTrial:
    """Archives tasks while the worker is killed at each of the moments, and judges the end.

    Args:
        place: where the workers work.
        rows: tasks to make; three quarters of them are due.
        moments: of the kills, in rows that have left.
        destination: whereto.
        batch_rows: for each transaction.
        connections: that work side by side.
    """
    began = time.monotonic()
    async with place.watched() as watch:
        before = await make_archivable(watch.manager, rows)
        request = ArchiveDeleted(destination=destination, batch_rows=batch_rows, connections=connections)
        run_id = await place.enqueue(watch, request)
        landed = await kill_through(place, watch, run_id, moments, counter="rows")
        trial = await judge_archive(watch, run_id, before, destination)
    trial.landed, trial.seconds = landed, time.monotonic() - began
    return trial


async def make_archivable(manager: DatabaseManager, count: int) -> Rows:
    """Make tasks, three quarters of them due; returns them as they are."""
    user = uuid7()
    made = [task_row(user, number, LONG_AGO if number % LIVING_EVERY else None) for number in range(count)]
    async with manager.session() as session:
        await session.execute(insert(User).values(id=user, username=f"ada-{user}"))
        for start in range(0, count, 1000):
            await session.execute(insert(Task), made[start : start + 1000], execution_options=IN_ONE_STATEMENT)
    return await _rows_of(manager, TASKS)


async def _rows_of(manager: DatabaseManager, table: Table) -> Rows:
    columns = [table.c[column.name] for column in TASKS.columns]
    async with manager.session() as session:
        return {row.id: _plain(dict(row._mapping)) for row in await session.execute(select(*columns))}


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON knows it; instants are compared as numbers, for engines write them with more or fewer zeros."""
    plain = {name: json_value(value) for name, value in row.items()}
    return {name: _instant(value) if name.endswith("_at") else value for name, value in plain.items()}


def _instant(text: str | None) -> str | None:
    return text and text.replace("+00:00", "").rstrip("0").rstrip(".")


async def judge_archive(watch: Watch, run_id: UUID, before: Rows, destination: Destination) -> ArchiveTrial:
    """Compare what there is with what there was, and with what the run says of itself."""
    trial = ArchiveTrial()
    left = await _rows_of(watch.manager, TASKS)
    run = await watch.run(run_id)
    assert run is not None
    report = ArchiveReport.model_validate(run.report)
    if destination == "tables":
        archived = Counter(list(await _rows_of(watch.manager, TASKS_ARCHIVE)))
        contents = await _rows_of(watch.manager, TASKS_ARCHIVE)
    else:
        archived, contents = _read_files(Path(report.folder or ""), trial)
    places = Counter(list(left)) + archived
    trial.lost = sum(key not in places for key in before)
    trial.doubled = sum(count - 1 for count in places.values())
    due = {key for key, row in before.items() if row["is_deleted"]}
    found = left | contents
    trial.changed = sum(found.get(key) != row for key, row in before.items())
    trial.changed += len(due ^ set(archived))
    counted = {"rows": run.counters["rows"], "moved": run.counters["moved:tasks"], "report": report.moved["tasks"]}
    trial.wrong += [f"{name} says {count}, not {len(due)}" for name, count in counted.items() if count != len(due)]
    if report.left or report.kept or report.due != {"tasks": len(due)}:
        trial.wrong.append(f"the report says {report}")
    return trial


def _read_files(folder: Path, trial: ArchiveTrial) -> tuple[Counter[UUID], Rows]:
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    listed = [PartFile(part["file"], part["rows"], part["bytes"], part["sha256"]) for part in manifest["parts"]]
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    if there != {part.name for part in listed}:
        trial.wrong.append(f"files that are not listed, or not there: {there ^ {part.name for part in listed}}")
    found, contents = Counter[UUID](), Rows()
    for part in listed:
        lines = read_part(folder, part).decode().splitlines()
        if len(lines) != part.rows:
            trial.wrong.append(f"{part.name} has {len(lines)} rows, not {part.rows}")
        for line in lines:
            row = _plain(json.loads(line))
            found[UUID(row["id"])] += 1
            contents[UUID(row["id"])] = row
    return found, contents
