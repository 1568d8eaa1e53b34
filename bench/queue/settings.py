"""What the measured processes are told. The environment is read here and in no other place of ``bench.queue``."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MARKS_VARIABLE = "HOLDFAST_BENCH_MARKS"
TWIN_VARIABLE = "HOLDFAST_BENCH_TWIN"
"""Which ledgered twin of a kind our adapter measures in the peers' harness."""

# What a process needs of the developer's shell; no setting of Holdfast is among it.
KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")


def marks_file() -> Path:
    """Return the file that the jobs leave their marks in.

    Raises:
        RuntimeError: nobody has named it.
    """
    name = os.environ.get(MARKS_VARIABLE)
    if not name:
        raise RuntimeError(f"{MARKS_VARIABLE} is not set: these kinds are for measuring; start them by python -m bench")
    return Path(name)


@dataclass(frozen=True, slots=True)
class Harness:
    """What the peers' harness tells its adapters."""

    redis_port: int
    postgres_dsn: str
    marks: Path
    ledgered: bool
    twin: str
    """Of the ledgered kinds."""
    concurrency: int

    @classmethod
    def from_environment(cls) -> "Harness":
        """Read it; the defaults are the harness's own."""
        return cls(
            redis_port=int(os.environ.get("QB_REDIS_PORT", "7411")),
            postgres_dsn=os.environ.get("QB_PG_DSN", "postgresql://postgres@127.0.0.1:7432/q"),
            marks=Path(os.environ["QB_FILE"]),
            ledgered=os.environ.get("QB_LEDGER") == "1",
            twin=os.environ.get(TWIN_VARIABLE, "ledgered"),
            concurrency=int(os.environ.get("QB_CONCURRENCY", "100")),
        )

    @property
    def redis_url(self) -> str:
        """The URL of the Redis that may be flushed."""
        return f"redis://127.0.0.1:{self.redis_port}/0"


def kept_environment() -> dict[str, str]:
    """Return the variables of this process that its children need."""
    return {name: os.environ[name] for name in (*KEPT_VARIABLES, "PYTHONPATH") if name in os.environ}


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """Where a worker of ours works."""

    redis_url: str
    data_dir: Path
    marks: Path
    slots: int
    database_url: str = ""
    """Empty: an SQLite file in the data folder, for kinds that keep no ledger."""

    def environment(self) -> Mapping[str, str]:
        """Return the settings of ``python -m worker run``."""
        return {
            "REDIS_URL": self.redis_url,
            "DATABASE_URL": self.database_url,
            "HOLDFAST_DATA_DIR": str(self.data_dir),
            "HOLDFAST_PLUGINS": "bench.queue.kinds",
            "MAX_JOBS": str(self.slots),
            "DATABASE_POOL_SIZE": str(min(self.slots, 20)),
            "DATABASE_MAX_OVERFLOW": "0",
            "LOG_LEVEL": "warning",
            MARKS_VARIABLE: str(self.marks),
        }
