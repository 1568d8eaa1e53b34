"""The worker is killed at random moments while it restores rows from an archive, or erases them, again and again."""

import asyncio
import json
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import insert, select

from db.archives.reading import read_line
from db.connection import close_database, initialize_database
from db.models import TASKS_ARCHIVE, ArchivePart, Erasure, Task, User
from db.repositories import run_list
from db.repositories.run_list import RunFilter
from holdfast.ids import uuid7
from holdfast.requests import EraseArchived, JobRequest, RestoreArchived
from holdfast.states import RunState
from jobs.archive_deleted.part_files import PartFile, read_part
from tests.archive.returns import archive
from tests.faults.history import Asked, Expected, check_history
from tests.faults.place import Place
from tests.faults.watch import Sample, Watch
from worker.ledger import SUSPECT_AFTER

Action = Literal["restore", "erase"]
Destination = Literal["tables", "files"]
RETURNS: dict[str, tuple[Action, Destination]] = {
    "restore-from-tables": ("restore", "tables"),
    "restore-from-files": ("restore", "files"),
    "erase-from-tables": ("erase", "tables"),
    "erase-from-files": ("erase", "files"),
}
ROWS: dict[Destination, int] = {"tables": 1_000, "files": 600}
"""Each row of a file means writing it anew."""
LONG_AGO = datetime(2025, 1, 31, tzinfo=UTC)
UNTOUCHED_ROWS = 300
LONGEST_DELAY_S = 0.03
"""A few transactions long, so that every point of one is hit."""
COUNTERS = {"restore": "restored:tasks", "erase": "erased:tasks"}
CHANGED = {"is_deleted", "deleted_at", "updated_at"}


@dataclass
class ReturnTrial:
    """What came of it."""

    landed: int
    """Kills that hit a worker which had the run."""
    seconds: float
    lost: int = 0
    doubled: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def findings(self) -> list[str]:
        """Everything that is wrong, in words."""
        counts = {"lost": self.lost, "doubled": self.doubled}
        return [f"{name}: {count}" for name, count in counts.items() if count] + self.problems


@dataclass(frozen=True)
class Case:
    """What is killed.

    Args:
        action: the job.
        destination: where the rows were archived to.
        rows: so many are restored or erased, at most 1,000; others lie beside them.
    """

    action: Action
    destination: Destination
    rows: int

    def request(self, ids: Sequence[UUID]) -> JobRequest[Any]:
        """The request for these rows."""
        texts = tuple(map(str, ids))
        if self.action == "restore":
            return RestoreArchived(table="tasks", ids=texts)
        return EraseArchived(table="tasks", ids=texts, reason="a trial")


async def kill_and_restart(place: Place, case: Case, kills: int, seed: int) -> ReturnTrial:
    """Kill the worker again and again, and judge the end."""
    rng, began = random.Random(seed), time.monotonic()  # noqa: S311 - no secret
    async with place.watched() as watch:
        rows = await _archived(place, watch, case)
        wanted = rng.sample(list(rows), case.rows)
        run_id = await place.enqueue(watch, case.request(wanted))
        landed, fence = 0, 0
        for number, target in enumerate(sorted(rng.randrange(max(1, case.rows - 10)) for _ in range(kills))):
            with place.worker(f"worker-{number}") as worker:

                def has_come(sample: Sample, after: int = fence, least: int = target) -> bool:
                    has_it = sample.state is RunState.RUNNING and sample.fence > after
                    done = sample.counters.get(COUNTERS[case.action], 0)
                    return has_it and done >= least and sample.crashes < SUSPECT_AFTER

                seen = await watch.until(run_id, has_come, worker=worker)
                await asyncio.sleep(rng.uniform(0, LONGEST_DELAY_S))
                worker.kill()
            left = await watch.look(run_id)
            assert left is not None
            if left.state.is_over:
                break  # on a busy machine a kill may come too late; `landed` tells
            landed, fence = landed + 1, max(seen.fence, left.fence)
        with place.worker("worker-last") as worker:
            await watch.until_over(run_id, worker=worker)
            worker.terminate()
        trial = ReturnTrial(landed, time.monotonic() - began)
        await _judge(place, watch, case, run_id, trial, rows, set(wanted))
        return trial


async def run_return_kills(
    engine: str,
    kills: int,
    seed: int,
    cases: Collection[str],
    open_place: Callable[[str], AbstractContextManager[Place]],
) -> bool:
    """The long form: restore and erase from tables and from files; prints a line for each, returns whether all is well.

    Args:
        engine: which one; it is in the lines.
        kills: of each case.
        seed: of the moments.
        cases: those of `RETURNS` that are asked for.
        open_place: makes a place of the engine's.
    """
    passed = True
    for name in cases:
        action, destination = RETURNS[name]
        with open_place(engine) as place:
            trial = await kill_and_restart(place, Case(action, destination, rows=ROWS[destination]), kills, seed)
        words = "; ".join(trial.problems[:5]) or "rows, counters, files and list exact"
        print(
            f"{engine:<10}  {name.replace('-', ' ')}: kills {trial.landed} of {kills}, "
            f"rows lost {trial.lost}, doubled {trial.doubled}; {words}, {trial.seconds:.0f} s",
            flush=True,
        )
        passed = passed and not trial.findings and trial.landed == kills
    return passed


async def _archived(place: Place, watch: Watch, case: Case) -> dict[UUID, dict[str, Any]]:
    """Make tasks and archive them; returns what each was."""
    user = uuid7()
    made = [
        {"id": uuid7(), "title": f"task {number}", "external_key": f"K-{number}", "user_id": user, "created_by": "ada",
         "metadata_json": {"number": number}, "is_deleted": True, "deleted_at": LONG_AGO}
        for number in range(case.rows + UNTOUCHED_ROWS)
    ]  # fmt: skip
    async with watch.manager.session() as session:
        await session.execute(insert(User).values(id=user, username="ada"))
        await session.execute(insert(Task), made)
        columns = Task.__table__.columns
        rows = {row.id: dict(row._mapping) for row in await session.execute(select(*columns))}
    await initialize_database(place.settings)
    try:
        report = await archive(place.settings, destination=case.destination)
    finally:
        await close_database()
    assert report.moved == {"tasks": len(made)}
    return rows


async def _judge(
    place: Place,
    watch: Watch,
    case: Case,
    run_id: UUID,
    trial: ReturnTrial,
    rows: dict[UUID, dict[str, Any]],
    wanted: set[UUID],
) -> None:
    async with watch.manager.session(read_only=True) as session:
        living = {row.id: dict(row._mapping) for row in await session.execute(select(*Task.__table__.columns))}
        in_table = {row.id: dict(row._mapping) for row in await session.execute(select(TASKS_ARCHIVE))}
        parts = list(await session.scalars(select(ArchivePart)))
        listed = [row.row_key for row in await session.scalars(select(Erasure))]
        run = await run_list.find_run(session, run_id)
        asked = Asked()
        for each in await run_list.list_runs(session, RunFilter(), before=None, limit=10):
            asked.acknowledged[each.job_id].append(Expected(0))
    assert run is not None
    in_files = _rows_of(place.settings.archives_dir, parts)
    archived = [*in_table, *(row["id"] for row in in_files)]
    should_live = wanted if case.action == "restore" else set[UUID]()
    should_stay = rows.keys() - wanted
    trial.lost = len(should_live - living.keys()) + len(should_stay - set(archived))
    trial.doubled = len(archived) - len(should_stay & set(archived)) + len(living.keys() - should_live)
    for row in [*living.values(), *in_table.values(), *in_files]:
        same = rows[row["id"]]
        trial.problems += [
            f"{row['id']}: {name} is {row[name]!r}, not {value!r}"
            for name, value in same.items()
            if row[name] != value and not (row["id"] in living and name in CHANGED)
        ]
    trial.problems += [f"{key} lives but is marked" for key, row in living.items() if row["is_deleted"]]
    if sorted(listed) != (sorted(map(str, wanted)) if case.action == "erase" else []):
        trial.problems.append(f"the erasure list has {len(listed)} rows")
    name = COUNTERS[case.action]
    report = (run.report or {}).get(name.partition(":")[0])
    if (run.counters or {}).get(name) != len(wanted) or report != {"tasks": len(wanted)}:
        trial.problems.append(f"counted are {run.counters} and {report}, not {len(wanted)}")
    if run.state != RunState.SUCCEEDED.value or run.attempts:
        trial.problems.append(f"the run is {run.state} ({run.error}) after {run.attempts} charged attempts")
    trial.problems += (await check_history(watch.manager, asked)).problems
    trial.problems += _wrong_files(place.settings.archives_dir, parts)


def _rows_of(folder: Path, parts: Sequence[ArchivePart]) -> list[dict[str, Any]]:
    rows = []
    for part in parts:
        file = PartFile(part.file, part.rows, part.bytes, part.sha256)
        lines = read_part(folder / str(part.run_id), file).decode().split("\n")[:-1]
        rows += [read_line(Task.__table__, line) for line in lines]  # type: ignore[arg-type]
    return rows


def _wrong_files(folder: Path, parts: Sequence[ArchivePart]) -> list[str]:
    listed = {f"{part.run_id}/{part.file}" for part in parts}
    there = {f"{path.parent.name}/{path.name}" for path in folder.glob("*/*") if path.name != "manifest.json"}
    wrong = [f"{name} lies there and is not listed" for name in there - listed]
    for path in folder.glob("*/manifest.json"):
        told = {part["file"]: part["sha256"] for part in json.loads(path.read_bytes())["parts"]}
        if told != {part.file: part.sha256 for part in parts if str(part.run_id) == path.parent.name}:
            wrong.append(f"{path} is not what the table lists")
    return wrong
