"""How much memory a worker takes at most while it imports a large file."""

import re
from dataclasses import dataclass
from pathlib import Path

from holdfast.requests import ImportTasks
from tests.faults.place import Place

LIMIT_MIB = 250
"""What is promised for a file of any size."""

MAPPING = {"external_key": "key", "title": "summary", "description": "details"}
WORDS = "The log says: canceling statement due to lock timeout, nothing more. "
SMALL_ROWS = 20_000
LARGE_ROWS = 20


@dataclass(frozen=True)
class MemoryTrial:
    """What one import took."""

    file_mib: float
    expected: dict[str, int]
    """The rows that had to be read, inserted and rejected."""
    counted: dict[str, int]
    peak_mib: float


def write_large_file(path: Path, size_bytes: int) -> dict[str, int]:
    """Writes a CSV file of at least so many bytes; returns how many rows an import reads, inserts and rejects.

    Small rows of about 900 bytes are followed by good and bad ones of half a megabyte, in turn to the end.
    """
    rows = rejected = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("key,summary,details\n")
        while file.tell() < size_bytes:
            for row in range(rows, rows + SMALL_ROWS):
                file.write(f'K-{row},Task {row},"{WORDS * (5 + row % 16)}"\n')
            for row in range(rows + SMALL_ROWS, rows + SMALL_ROWS + LARGE_ROWS):
                # A single character beyond the first 65,536 makes Python keep four bytes for each one of the text.
                details = f'"🐘{WORDS * 8_000}"'
                file.write(f"K-{row},Task {row},{details}\nB-{row},,{details}\n")
            rows += SMALL_ROWS + LARGE_ROWS
            rejected += LARGE_ROWS
    return {"rows_read": rows + rejected, "inserted": rows, "rejected": rejected}


async def measure_import(place: Place, size_bytes: int, *, timeout_s: float) -> MemoryTrial:
    """Imports a file of that size and returns the worker's peak; the kernel counts it (Linux only)."""
    path = place.folder / "large.csv"
    expected = write_large_file(path, size_bytes)
    async with place.watched() as watch:
        run_id = await place.enqueue(watch, ImportTasks(source=str(path), mapping=MAPPING))
        with place.worker() as worker:
            ended = await watch.until_over(run_id, worker=worker, timeout_s=timeout_s)
            peak_mib = peak_rss_mib(worker.pid)
            assert worker.terminate() == 0
    counted = {name: count for name, count in ended.counters.items() if count}
    return MemoryTrial(path.stat().st_size / 2**20, expected, counted, peak_mib)


def peak_rss_mib(pid: int) -> float:
    """Returns the most memory that a living process ever had in use.

    Not `getrusage`: what that tells of a child begins with the size of its parent.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None, status
    return int(found[1]) / 1024
