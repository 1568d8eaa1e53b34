"""The long form of the fault tests, in six parts: model, imports, archives, returns, memory, core.

`make faults` runs them all. One line for each trial, with its figures and its verdict. The same seed draws the same
examples, writes the same files, and draws the same moments and the same schedule of the nemesis.
"""

import argparse
import asyncio
import random
import secrets
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from db import migrate
from tests.faults.archives import LIVING_EVERY, Destination, kill_archives
from tests.faults.core import run_core
from tests.faults.kills import KillTrial, draw_moments, kill_and_restart
from tests.faults.memory import LIMIT_MIB, measure_import
from tests.faults.place import Place
from tests.faults.return_kills import RETURNS, run_return_kills
from tests.faults.scenarios import DOWN_S, LOGS, TRIALS, Scale
from tests.faults.task_files import write_task_file
from tests.forks import Forks
from tests.model.search import search_protocol, search_real_parts
from tests.processes import Starter
from tests.servers import MariaDBServer, MissingBinaryError, PostgresServer, RedisServer

SERVERS: dict[str, Callable[[], PostgresServer | MariaDBServer] | None] = {
    "sqlite": None,
    "postgresql": PostgresServer,
    "mariadb": MariaDBServer,
}
ARCHIVES: dict[str, tuple[Destination, int]] = {
    "archive-to-tables": ("tables", 1),
    "archive-to-files": ("files", 1),
    "archive-by-two": ("tables", 2),
}
"""Whereto, and by how many connections."""
PARTS = ("model", "imports", "archives", "returns", "memory", "core")
REAL_PARTS_TAKE = 20
"""Times as long as the model as data."""
BATCH_ROWS = 1000
ARCHIVED_BATCH_ROWS = 10
ARCHIVED_ROWS_A_KILL = 200
ARCHIVED_BY_TWO_BATCH_ROWS = 3
ARCHIVED_BY_TWO_ROWS_A_KILL = 600
"""They tell twice a second only how far they are."""
ARCHIVED_MARGIN_ROWS = 2000
HEARTBEAT_TIMEOUT_S = 1.0
MEMORY_TIMEOUT_S = 3600.0


def main() -> int:
    """Runs the trials; returns 1 when one of them found something."""
    options = _parse_options()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}; the same again: make faults ARGS='--seed {seed}'", flush=True)
    passed = []
    if "model" in options.parts:
        passed.append(search_protocol(seed, options.model_examples))
        passed += [_search(engine, seed, options.model_examples // REAL_PARTS_TAKE) for engine in options.engines]
    if "imports" in options.parts:
        passed += [asyncio.run(_kill(engine, options.kills, options.rows, seed)) for engine in options.engines]
    if "archives" in options.parts:
        passed += [asyncio.run(_kill_archives(engine, options, seed)) for engine in options.engines]
    if "returns" in options.parts:
        passed += [asyncio.run(_returns(engine, options, seed)) for engine in options.engines]
    if "memory" in options.parts:
        passed.append(asyncio.run(_measure(options.file_mb)))
    if "core" in options.parts:
        names = ("producer_kills", "dispatcher_kills", "waiting", "nemesis_s", "logs", "down_s")
        scale = Scale(seed=seed, **{name: getattr(options, name) for name in names})
        passed += [asyncio.run(_core(engine, scale, options.only)) for engine in options.engines]
    return 0 if all(passed) else 1


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--seed", type=int, help="draw the same files and moments again (default: a new one)")
    parser.add_argument("--engines", nargs="+", choices=list(SERVERS), default=list(SERVERS), help="default: all")
    parser.add_argument("--only", nargs="+", choices=TRIALS, default=TRIALS, help="of the core's trials (default: all)")
    actions = [*ARCHIVES, *RETURNS]
    words = "of the archives and returns (default: all)"
    parser.add_argument("--actions", nargs="+", choices=actions, default=actions, help=words)
    parser.add_argument("--logs", nargs="+", choices=LOGS, default=LOGS, help="of the restarted Redis (default: all)")
    words = f"lengths of its outages (default: {' '.join(f'{seconds:g}' for seconds in DOWN_S)})"
    parser.add_argument("--down-s", nargs="+", type=float, default=DOWN_S, metavar="S", help=words)
    numbers = {
        "--model-examples": (5000, "examples of the model; of those with the real parts one in twenty"),
        "--kills": (20, "kills in each import"),
        "--rows": (200_000, "rows of the killed imports"),
        "--archive-kills": (200, "kills in each archive: to tables, to files, by two connections"),
        "--return-kills": (200, "kills in each return: restored or erased, from tables or files"),
        "--file-mb": (1000, "size of the large file"),
        "--producer-kills": (200, "kills of producers with the outbox"),
        "--dispatcher-kills": (100, "kills of workers that dispatch"),
        "--waiting": (10_000, "runs that wait when Redis is emptied"),
        "--nemesis-s": (60, "seconds of everything mixed"),
    }
    for name, (default, words) in numbers.items():
        parser.add_argument(name, type=int, default=default, metavar="N", help=f"{words} (default: {default})")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    options.parts = options.parts or list(PARTS)
    return options


def _search(engine: str, seed: int, examples: int) -> bool:
    try:
        with _place(engine, with_redis=False) as place, RedisServer() as queue:
            asyncio.run(migrate.upgrade(place.settings))
            return search_real_parts(engine, place.database_url, queue.url, seed, examples)
    except MissingBinaryError as error:
        print(f"{engine:<10}  not run: {error}", flush=True)
        return True


async def _core(engine: str, scale: Scale, only: Collection[str]) -> bool:
    try:
        return await run_core(engine, scale, only)
    except MissingBinaryError as error:
        print(f"{engine:<10}  not run: {error}", flush=True)
        return True


async def _returns(engine: str, options: argparse.Namespace, seed: int) -> bool:
    cases = [name for name in RETURNS if name in options.actions]
    try:
        with Forks() as forks:
            open_place = partial(_place, with_redis=False, starter=forks)
            return await run_return_kills(engine, options.return_kills, seed, cases, open_place)
    except MissingBinaryError as error:
        print(f"{engine:<10}  not run: {error}", flush=True)
        return True


async def _kill(engine: str, kills: int, rows: int, seed: int) -> bool:
    trials = [(True, False), (False, False)]
    if engine == "postgresql":
        trials.append((False, True))
    passed = True
    try:
        for keyed, with_redis in trials:
            with _place(engine, with_redis=with_redis) as place:
                file = write_task_file(place.folder / "tasks.csv", rows, seed=seed, keyed=keyed)
                moments = draw_moments(random.Random(seed), kills, rows)  # noqa: S311 - no secret
                trial = await kill_and_restart(place, file, moments, batch_rows=BATCH_ROWS)
            words = f"{'with' if keyed else 'without'} a key, {'Redis' if with_redis else 'embedded queue'}"
            print(f"{engine:<10}  {words}: {_summary(trial, kills)}", flush=True)
            passed = passed and not trial.verdict.problems and trial.landed == kills
    except MissingBinaryError as error:
        print(f"{engine:<10}  not run: {error}", flush=True)
    return passed


async def _kill_archives(engine: str, options: argparse.Namespace, seed: int) -> bool:
    kills, passed = options.archive_kills, True
    actions = [ARCHIVES[name] for name in ARCHIVES if name in options.actions]
    try:
        for destination, connections in actions:
            if connections > 1 and engine == "sqlite":  # it has one writer
                continue
            batch_rows, rows_a_kill = ARCHIVED_BATCH_ROWS, ARCHIVED_ROWS_A_KILL
            if connections > 1:
                batch_rows, rows_a_kill = ARCHIVED_BY_TWO_BATCH_ROWS, ARCHIVED_BY_TWO_ROWS_A_KILL
            rows = rows_a_kill * kills + ARCHIVED_MARGIN_ROWS
            with Forks() as forks, _place(engine, with_redis=False, starter=forks) as place:
                due = rows * (LIVING_EVERY - 1) // LIVING_EVERY
                rng = random.Random(seed)  # noqa: S311 - no secret
                moments = draw_moments(rng, kills, due, margin_rows=ARCHIVED_MARGIN_ROWS)
                trial = await kill_archives(
                    place,
                    rows,
                    moments,
                    destination=destination,
                    batch_rows=batch_rows,
                    connections=connections,
                )
            by = "" if connections == 1 else f" by {connections} connections"
            print(
                f"{engine:<10}  archive to {destination}{by}: kills {trial.landed} of {kills}, rows lost {trial.lost}, "
                f"doubled {trial.doubled}, changed {trial.changed}, "
                f"{'; '.join(trial.wrong) or 'counters and files exact'}, {trial.seconds:.0f} s",
                flush=True,
            )
            passed = passed and not trial.problems and trial.landed == kills
    except MissingBinaryError as error:
        print(f"{engine:<10}  not run: {error}", flush=True)
    return passed


def _summary(trial: KillTrial, kills: int) -> str:
    verdict = trial.verdict
    parts = [
        f"kills {trial.landed}" + (f" (of {kills})" if trial.landed != kills else ""),
        f"rows lost {verdict.lost}",
        f"doubled {verdict.doubled}",
        f"rejects {'exact' if not verdict.wrong_rejects else f'wrong in {verdict.wrong_rejects} lines'}",
        f"counters {'exact' if not verdict.wrong_counters else 'wrong'}",
        f"ledger {'in order' if not verdict.broken_rules else 'broken'}",
        f"{trial.seconds:.0f} s",
    ]
    return "; ".join([", ".join(parts), *verdict.wrong_counters, *verdict.broken_rules])


async def _measure(file_mb: int) -> bool:
    with _place("sqlite", with_redis=False) as place:
        trial = await measure_import(place, file_mb * 1_000_000, timeout_s=MEMORY_TIMEOUT_S)
    exact = "exact" if trial.counted == trial.expected else f"wrong: {trial.counted}, not {trial.expected}"
    print(
        f"sqlite      a file of {trial.file_mib:.0f} MiB, {trial.expected['rows_read']} rows: "
        f"peak {trial.peak_mib:.0f} MiB (limit {LIMIT_MIB}), counters {exact}",
        flush=True,
    )
    return trial.peak_mib <= LIMIT_MIB and trial.counted == trial.expected


@contextmanager
def _place(engine: str, *, with_redis: bool, starter: Starter | None = None) -> Iterator[Place]:
    make = SERVERS[engine]
    with tempfile.TemporaryDirectory(prefix="holdfast-faults-") as name:
        folder = Path(name)
        if make is None:
            yield Place(f"sqlite:///{folder / 'holdfast.db'}", folder, starter=starter)
            return
        with make() as server:
            if not with_redis:
                yield Place(server.create_database(), folder, starter=starter)
                return
            with RedisServer() as queue:
                yield Place(server.create_database(), folder, queue.url, heartbeat_timeout_s=HEARTBEAT_TIMEOUT_S)


if __name__ == "__main__":
    sys.exit(main())
