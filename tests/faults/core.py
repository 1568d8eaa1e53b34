"""The long trials of the core: each of FAULTS' numbers in full, one line a trial, with its figures and its verdict."""

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.faults.scenarios import (
    DEFAULTS,
    ON_EACH_ENGINE,
    RESTARTS,
    TRIALS,
    Arena,
    Log,
    Scale,
    Scenario,
    name_of,
    redis_restarted_after,
)
from tests.faults.trial import open_trial
from tests.servers import MariaDBServer, PostgresServer, RedisServer

LONGEST_S = 600.0


async def run_core(engine: str, scale: Scale, only: Collection[str] = TRIALS) -> bool:
    """Runs these trials on an engine; returns whether all of them passed."""
    passed = True
    for scenario, settings in ON_EACH_ENGINE:
        if name_of(scenario) in only:
            passed &= await _run(engine, scale, scenario, settings)
    if RESTARTS in only:
        for log in scale.logs:
            for down_s in scale.down_s:
                words = "without a log, " if log == "no" else f"with a log flushed {log}, "
                passed &= await _run(engine, scale, redis_restarted_after(down_s), DEFAULTS, log, words)
    return passed


async def _run(
    engine: str,
    scale: Scale,
    scenario: Scenario,
    settings: dict[str, str],
    log: Log = "no",
    note: str = "",
) -> bool:
    began = time.monotonic()
    try:
        async with _arena(engine, scale, settings, log) as arena:
            words = await scenario(arena)
            findings = await arena.trial.findings(within_s=LONGEST_S)
            runs = len(await arena.trial.runs())
            problems = findings.problems
    except AssertionError as error:
        words, runs, problems = name_of(scenario).replace("_", " "), 0, [str(error)]
    verdict = "nothing lost, nothing doubled" if not problems else f"FAILED: {'; '.join(problems)}"
    print(f"{engine:<10}  {note}{words}; {runs} runs, {verdict}; {time.monotonic() - began:.0f} s", flush=True)
    return not problems


@asynccontextmanager
async def _arena(engine: str, scale: Scale, settings: dict[str, str], log: Log) -> AsyncIterator[Arena]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-faults-")))
        server = stack.enter_context(await asyncio.to_thread(RedisServer, appendonly=log))
        url = f"sqlite:///{folder / 'holdfast.db'}"
        if engine != "sqlite":
            make: type[PostgresServer | MariaDBServer] = PostgresServer if engine == "postgresql" else MariaDBServer
            database: PostgresServer | MariaDBServer = await asyncio.to_thread(make)
            stack.enter_context(database)
            url = database.create_database()
        trial = await stack.enter_async_context(open_trial(url, server.url, folder, **settings))
        trial.is_quiet = True
        yield Arena(trial, server, random.Random(scale.seed), scale)  # noqa: S311 - it must repeat
