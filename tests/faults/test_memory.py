"""Memory does not grow with the file. `make faults` imports a gigabyte."""

from pathlib import Path

import pytest

from tests.faults.memory import LIMIT_MIB, measure_import
from tests.faults.place import Place

FILE_BYTES = 60_000_000


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
async def test_memory_stays_bounded(sqlite_url: str, tmp_path: Path) -> None:
    trial = await measure_import(Place(sqlite_url, tmp_path), FILE_BYTES, timeout_s=120)

    assert trial.counted == trial.expected
    assert trial.peak_mib <= LIMIT_MIB
