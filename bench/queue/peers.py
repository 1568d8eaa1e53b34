"""The peers: their own harness, from its own folder, with our adapter in it."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.queue.arena import Arena
from bench.queue.scale import Scale
from bench.queue.settings import TWIN_VARIABLE, kept_environment
from bench.queue.table import Row, Target, at_least_times, at_most_times
from tests.processes import CHECKOUT

PHASES = "enqueue,drain1,drain2,nap,latency,idle"
ON_POSTGRES = ("pgqueuer", "procrastinate")
ENVIRONMENT_OF = {"pgqueuer": "pgq", "procrastinate": "pgq"}
SESSION_COUNT = 3_000
"""Runs with a session each, unless the caller names a number."""
PEERS = ("arq", "arq-tuned", "streaq-uv", "saq", "taskiq-stream", "pgqueuer", "procrastinate")

# Whose figure, which figure, beside which peer, and what it must reach.
COMPARISONS: tuple[tuple[str, str, str, Target | None], ...] = (
    ("holdfast", "drain1", "arq", at_least_times(10)),
    ("holdfast", "drain1", "arq-tuned", at_least_times(6.5)),
    ("holdfast", "drain1", "saq", at_least_times(6)),
    ("holdfast", "drain1", "streaq-uv", at_least_times(9)),
    ("holdfast", "drain1", "pgqueuer", at_least_times(1.2)),
    ("holdfast", "drain1", "taskiq-stream", None),
    ("holdfast-ledger", "drain1", "pgqueuer", at_least_times(0.55)),
    ("holdfast-ledger", "drain1", "procrastinate", at_least_times(10)),
    ("holdfast-ledger", "drain1", "arq-tuned", at_least_times(3)),
    ("holdfast-session", "drain1", "procrastinate", at_least_times(1.5)),
    ("holdfast", "enq_s", "arq", at_least_times(1.8)),
    ("holdfast", "enq_batch_s", "arq", at_least_times(10)),
    ("holdfast", "enq_batch_s", "streaq-uv", at_least_times(4)),
    ("holdfast", "p99", "arq", at_most_times(1 / 50)),
    ("holdfast", "p99", "taskiq-stream", at_most_times(2)),
)
UNITS = {"drain1": "runs/s", "enq_s": "runs/s", "enq_batch_s": "runs/s", "p99": "ms"}


class PeersMissing(ValueError):  # noqa: N818
    """The folder is not the peers' harness; the message is one line."""


def measure(folder: Path, arena: Arena, scale: Scale, *, phases: str = PHASES, count: int | None = None) -> list[Row]:
    """Run the peers' harness beside ours.

    Args:
        folder: with ``bench_queue.py`` and the peers' environments (``venvs``), which its own README tells to make.
        arena: whose Redis and PostgreSQL are used.
        scale: how often.
        phases: of the harness.
        count: runs of each drain; the harness's own number if not given.

    Raises:
        PeersMissing: the folder holds no such thing.
        RuntimeError: the harness failed.
    """
    present = _present(folder)
    on_postgres = bool(set(present) & set(ON_POSTGRES))
    environment = _environment(arena, _prepare_postgres(folder, arena) if on_postgres else "")
    program = PeersProgram(folder.absolute() / "bench_queue.py", arena.folder / "peers.jsonl", environment)
    contestants = ["holdfast", *(["holdfast-ledger"] if on_postgres else []), *present]
    found: list[dict[str, Any]] = []
    for number in scale.rounds():
        found += [line | {"round": number} for line in program.run(contestants, phases, count)]
        if "procrastinate" in present and "drain1" in phases.split(","):
            lines = program.run(["holdfast-ledger"], "drain1", count or SESSION_COUNT, twin="session")
            found += [line | {"round": number, "peer": "holdfast-session"} for line in lines]
    return _rows(found)


@dataclass(frozen=True, slots=True)
class PeersProgram:
    """The peers' program."""

    program: Path
    results: Path
    """Where it adds its lines."""
    environment: Mapping[str, str]

    def run(
        self, contestants: Sequence[str], phases: str, count: int | None, *, twin: str = "ledgered"
    ) -> list[dict[str, Any]]:
        """Measure each of them once, one after the other; returns the lines that it adds.

        Raises:
            RuntimeError: it failed.
        """
        words = ["--peers", ",".join(contestants), "--phases", phases, "--out", str(self.results)]
        words += [] if count is None else ["--n", str(count)]
        environment = {**self.environment, TWIN_VARIABLE: twin}
        self.results.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, str(self.program), *words], env=environment, cwd=self.results.parent, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.program} failed with exit code {done.returncode}")
        return [json.loads(line) for line in self.results.read_text().splitlines()]


def _present(folder: Path) -> list[str]:
    if not (folder / "bench_queue.py").is_file():
        raise PeersMissing(f"--peers {folder}: no bench_queue.py there; name the folder of the peers' harness")
    present = [name for name in PEERS if (folder / "venvs" / _venv(name) / "bin" / "python").exists()]
    if not present:
        raise PeersMissing(f"--peers {folder}: no environments in its venvs; make them as its README says")
    return present


def _venv(name: str) -> str:
    return ENVIRONMENT_OF.get(name, name.split("-", 1)[0])


def _prepare_postgres(folder: Path, arena: Arena) -> str:
    server = arena.postgres
    server.execute("CREATE DATABASE q")
    place = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres", "PGDATABASE": "q"}
    python = folder.absolute() / "venvs" / _venv("pgqueuer") / "bin" / "python"
    subprocess.run([python, "-m", "pgqueuer", "install"], env={**kept_environment(), **place}, check=True)
    return server.url.rsplit("/", 1)[0] + "/q"


def _environment(arena: Arena, postgres_dsn: str) -> Mapping[str, str]:
    return {
        **{name: value for name, value in kept_environment().items() if name != "PYTHONPATH"},
        "QB_REDIS_PORT": str(arena.redis_server.port),
        "QB_PG_DSN": postgres_dsn,
        "QB_OUT": str(arena.folder),
        "QB_ADAPTER_DIR": str(CHECKOUT / "bench" / "queue"),
        "QB_PYTHON_holdfast": sys.executable,
        "QB_CWD_holdfast": str(CHECKOUT),
    }


def _rows(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    rows = []
    for name, figure, peer, target in COMPARISONS:
        ours, theirs = _figures(found, name, figure), _figures(found, peer, figure)
        rounds = sorted(ours.keys() & theirs.keys())  # the harness leaves out a figure that it could not take
        if rounds:
            pairs = [ours[one] for one in rounds], [theirs[one] for one in rounds]
            rows.append(Row(f"{name}: {figure}", UNITS[figure], *pairs, peer, target))
    return rows


def _figures(found: Sequence[Mapping[str, Any]], name: str, figure: str) -> dict[int, float]:
    """Return a contestant's figure of each round."""
    of_peer = {line["round"]: line for line in found if line["peer"] == name}
    values = {
        number: (line.get("lat_ms") or {}).get("p99") if figure == "p99" else line.get(figure)
        for number, line in of_peer.items()
    }
    return {number: float(value) for number, value in values.items() if value}
