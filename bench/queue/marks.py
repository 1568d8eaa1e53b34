"""The instrument: each job leaves one record of 16 bytes, its start and its producer's time, in one file.

Writes that append so few bytes are atomic, so one file serves every process of a measurement, and costs 1 to 2 us.
"""

import os
import struct
import time
from functools import cache
from pathlib import Path

from bench.queue.settings import marks_file

RECORD = struct.Struct("dd")


@cache
def _descriptor() -> int:
    return os.open(marks_file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def mark(t0: float = 0.0) -> float:
    """Write down that a job has started now.

    Args:
        t0: the producer's time (Unix seconds), or 0.

    Returns:
        Now, in Unix seconds.
    """
    now = time.time()
    os.write(_descriptor(), RECORD.pack(now, t0))
    return now


class Marks:
    """The marks of one measurement, as its driver reads them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.forget()

    def forget(self) -> None:
        """Remove every mark; workers go on appending."""
        self.path.write_bytes(b"")

    @property
    def count(self) -> int:
        """How many jobs have started."""
        return self.path.stat().st_size // RECORD.size

    def starts(self) -> list[float]:
        """Return when the jobs started (Unix seconds), in order."""
        return sorted(start for start, _ in RECORD.iter_unpack(self._whole_records()))

    def lateness_ms(self) -> list[float]:
        """Return by how much each job started after its producer's time, in ms, in order."""
        return sorted(1000 * (start - t0) for start, t0 in RECORD.iter_unpack(self._whole_records()) if t0)

    def wait_for(self, count: int, timeout_s: float) -> None:
        """Return when so many jobs have started.

        Raises:
            TimeoutError: they have not in time.
        """
        deadline = time.monotonic() + timeout_s
        while self.count < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.count} of {count} jobs have started after {timeout_s:g} s")
            time.sleep(0.02)  # an eye that is opened more often takes the servers a tenth of a core

    def _whole_records(self) -> bytes:
        data = self.path.read_bytes()
        return data[: len(data) // RECORD.size * RECORD.size]
