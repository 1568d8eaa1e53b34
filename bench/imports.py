"""An import through the job against psql's ``\\copy`` of the same rows into the same table with its indexes.

The import reads the file as a user has it, validates each row, looks its key up and commits batches together with the
ledger; it is timed from the enqueue to the end that the ledger shows, the wait for the worker's next look included.
``\\copy`` is what PostgreSQL can do at most: it gets the finished rows, in one transaction, and is timed as a process.
"""

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from holdfast.requests import ImportTasks
from holdfast.states import RunState
from samples.make_tasks import FIELD_MAP, write_tasks
from tests.faults.place import Place
from tests.servers import PostgresServer
from tests.servers.binaries import POSTGRES, find_server, find_tool

SEED = 7
COLUMNS = (
    "id, title, description, status, user_id, completed_at, external_key, import_run_id, created_at, updated_at, "
    "is_deleted, created_by, updated_by, metadata_json"
)
TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Pair:
    """Seconds that the two sides took, one after the other."""

    import_s: float
    copy_s: float

    @property
    def ratio(self) -> float:
        """How many times as long as the copy the import took."""
        return self.import_s / self.copy_s


async def measure(server: PostgresServer, rows: int) -> Pair:
    """Time both sides once, in a database of its own."""
    url = server.create_database()
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-") as name:
        place = Place(url, Path(name))
        import_s = await _import(server, place, rows)
        finished = place.folder / "finished.txt"  # not CSV: psql ends it at a line of \. inside a field
        _psql(url, f"\\copy tasks ({COLUMNS}) TO '{finished}'")
        server.execute("TRUNCATE tasks", url)
        server.execute("CHECKPOINT")
        started = time.monotonic()
        _psql(url, f"\\copy tasks ({COLUMNS}) FROM '{finished}'")
        copy_s = time.monotonic() - started
    _check_count(server, url, rows)
    server.drop_database(url)
    return Pair(import_s, copy_s)


async def _import(server: PostgresServer, place: Place, rows: int) -> float:
    path = place.folder / "tasks.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        write_tasks(file, rows, SEED, bad_every=None)
    async with place.watched() as watch:
        with place.worker() as worker:
            worker.wait_for("worker started")
            server.execute("CHECKPOINT")
            started = time.monotonic()
            run_id = await place.enqueue(watch, ImportTasks(source=str(path), mapping=FIELD_MAP))
            ended = await watch.until_over(run_id, worker=worker, timeout_s=TIMEOUT_S)
            seconds = time.monotonic() - started
            worker.terminate()
    if ended.state is not RunState.SUCCEEDED:
        raise RuntimeError(f"the import is {ended.state}: {ended.counters}")
    _check_count(server, place.database_url, rows)
    return seconds


def _psql(url: str, command: str) -> None:
    psql = find_tool(find_server(*POSTGRES), "psql")
    options = ["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"]
    subprocess.run([psql, *options, "--command", command, url], check=True)


def _check_count(server: PostgresServer, url: str, rows: int) -> None:
    if (count := int(server.execute("SELECT count(*) FROM tasks", url))) != rows:
        raise RuntimeError(f"{count} tasks instead of {rows}: the figures would compare different work")


def table(pairs: Sequence[Pair], rows: int) -> list[str]:
    """Return the lines of the table: medians, and the least and the most of each."""
    sides = {
        "import (holdfast)": [pair.import_s for pair in pairs],
        "\\copy (psql)": [pair.copy_s for pair in pairs],
    }
    lines = [
        f"{rows:,} rows, {len(pairs)} runs of each side in turn",
        "side               median s  least - most s   rows/s",
    ]
    for side, seconds in sides.items():
        middle, spread = median(seconds), f"{min(seconds):.2f} - {max(seconds):.2f}"
        lines.append(f"{side:<18}{middle:>9.2f}  {spread:>14}  {rows / middle:>8,.0f}")
    ratios = [pair.ratio for pair in pairs]
    lines.append(f"the import takes {median(ratios):.1f} times as long ({min(ratios):.1f} - {max(ratios):.1f})")
    return lines
