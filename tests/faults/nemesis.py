"""All of it mixed, from a seed: the same seed makes the same schedule of deeds.

Workers are killed and frozen, Redis is emptied, cut off and restarted, the database's sessions are ended, while
producers enqueue by both doors, and cancel.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import redis
from sqlalchemy import text

from db.errors import is_transient
from db.repositories import run_actions
from holdfast import Client, JobRequest, QueueUnavailable, outbox
from holdfast.ids import uuid7, uuid7_texts
from holdfast.states import RunState
from tests.faults.history import Expected
from tests.faults.kinds import TrialBlock, TrialFail, TrialWrite
from tests.faults.trial import Trial
from tests.processes import WorkerProcess
from tests.servers import RedisServer

WORKERS = 3
MEAN_PAUSE_S = 0.1
LOOK_S = 0.5
BLIND_MS = 200
# A run may be cancelled, be the duplicate of another, or be the one that runs alone when its worker is killed.
MAY_END = frozenset({RunState.SUCCEEDED, RunState.CANCELLED, RunState.QUARANTINED})
TERMINATE = {
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY random() LIMIT 3",
    "mysql": "SELECT id FROM information_schema.processlist WHERE db = DATABASE() AND id <> CONNECTION_ID() "
    "ORDER BY RAND() LIMIT 3",
}

Deed = Callable[[], Awaitable[None]]


class Nemesis:
    """Does harm in an order that its seed decides.

    Args:
        trial: with a Redis of its own.
        server: that Redis.
        seed: of the schedule.
    """

    def __init__(self, trial: Trial, server: RedisServer, seed: int) -> None:
        self._trial = trial
        self._server = server
        self._rng = random.Random(seed)  # noqa: S311 - it must repeat
        self._frozen: dict[WorkerProcess, float] = {}
        self._staff: list[WorkerProcess] = []
        self._known: list[str] = []
        self._look_at = 0.0
        self.deeds: Counter[str] = Counter()

    async def run(self, duration_s: float) -> None:
        """Does harm for so long (s); afterwards nothing stands in the way of the runs any more."""
        schedule = self._draw(duration_s)
        began = time.monotonic()
        self._hire()
        for at_s, name, deed in schedule:
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            await deed()
            self.deeds[name] += 1
            await self._wake(time.monotonic())
            self._hire()
            await self._note_ledgered()
        await self._wake(float("inf"))

    async def _note_ledgered(self) -> None:
        """Holds the trial to what its ledger has once had, though nobody was promised it before."""
        if not self._trial.asked.unsure or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_S
        asked = self._trial.asked
        try:
            there = {run.job_id for run in await self._trial.runs()}
        except Exception as error:
            if not is_transient(error):
                raise
            return
        for job_id in there & asked.unsure.keys():
            asked.acknowledged[job_id] += asked.unsure.pop(job_id)

    def _draw(self, duration_s: float) -> list[tuple[float, str, Deed]]:
        """Draws everything before the first deed: what happens then has no say in it."""
        rng, at_s, schedule = self._rng, 0.0, list[tuple[float, str, Deed]]()
        makers: dict[str, tuple[int, Callable[[], Deed]]] = {
            "enqueue": (30, lambda: partial(self._enqueue, self._requests(), self._due_in_s(), self._key())),
            "send": (15, lambda: partial(self._send, self._requests(), self._due_in_s())),
            "cancel": (5, lambda: partial(self._cancel, rng.random())),
            "kill": (2, lambda: partial(self._kill, rng.randrange(WORKERS))),
            "freeze": (3, lambda: partial(self._freeze, rng.randrange(WORKERS), rng.uniform(0.5, 5.0))),
            "flush": (1, lambda: self._flush),
            "restart Redis": (1, lambda: partial(self._restart_redis, rng.uniform(0.0, 1.5))),
            "cut connections": (2, lambda: partial(self._redis_command, "CLIENT", "KILL", "TYPE", "normal")),
            "hold Redis up": (2, lambda: partial(self._redis_command, "CLIENT", "PAUSE", rng.randint(50, 1500))),
            "end sessions": (3, lambda: self._end_sessions),
        }
        weights = [weight for weight, _ in makers.values()]
        while at_s < duration_s:
            (name,) = rng.choices(list(makers), weights)
            schedule.append((at_s, name, makers[name][1]()))
            at_s += rng.expovariate(1 / MEAN_PAUSE_S)
        return schedule

    def _requests(self) -> list[tuple[JobRequest[Any], Expected]]:
        return [self._request() for _ in range(self._rng.randint(1, 6))]

    def _request(self) -> tuple[JobRequest[Any], Expected]:
        rng = self._rng
        which, steps, pause_s, hold_s = rng.random(), rng.randint(1, 15), rng.uniform(0, 0.3), rng.uniform(0, 0.05)
        if which < 0.8:
            request = TrialWrite(steps=steps, pause_s=pause_s, hold_s=hold_s)
            return request, Expected(steps, MAY_END, atomic=False, most_charged=None)
        if which < 0.9:
            return TrialFail(times=1), Expected(1, MAY_END, atomic=False, most_charged=None)
        if which < 0.95:
            ends = (MAY_END - {RunState.SUCCEEDED}) | {RunState.FAILED}
            return TrialFail(), Expected(0, ends, most_charged=None)
        return TrialBlock(seconds=10 * pause_s), Expected(1, MAY_END, atomic=False, most_charged=None)

    def _due_in_s(self) -> float:
        return self._rng.choice([0.0, 0.0, 0.0, 2.0])

    def _key(self) -> str | None:
        return self._rng.choice([None, None, None, "a", "b"])

    def _hire(self) -> None:
        self._staff = [worker for worker in self._staff if worker.alive]
        while len(self._staff) < WORKERS:
            self._staff.append(self._trial.worker(MAX_JOBS="10"))

    async def _enqueue(self, requests: list[tuple[JobRequest[Any], Expected]], in_s: float, key: str | None) -> None:
        at = datetime.now(UTC) + timedelta(seconds=in_s) if in_s else None
        ids = [uuid7() for _ in requests]
        asked = self._trial.asked.acknowledged
        try:
            async with self._trial.manager.session() as session:
                for run_id, (request, _) in zip(ids, requests, strict=True):
                    await outbox.enqueue(session, request, at=at, run_id=run_id, unique_key=key)
        except Exception as error:
            if not is_transient(error):
                raise
            asked = self._trial.asked.unsure
        for run_id, (_, expected) in zip(ids, requests, strict=True):
            asked[str(run_id)].append(expected)
        self._known += map(str, ids)

    async def _send(self, requests: list[tuple[JobRequest[Any], Expected]], in_s: float) -> None:
        at = datetime.now(UTC) + timedelta(seconds=in_s) if in_s else None
        ids = uuid7_texts(len(requests))
        async with Client(self._trial.redis_url) as client:
            try:
                await client.enqueue_many([request for request, _ in requests], run_ids=ids, at=at)
            except QueueUnavailable:
                self.deeds["send that failed"] += 1
        for run_id, (_, expected) in zip(ids, requests, strict=True):
            self._trial.asked.unsure[run_id].append(expected)  # until the ledger has it, a flush may take it

    async def _cancel(self, which: float) -> None:
        if not self._known:
            return
        run_id = self._known[int(which * len(self._known))]
        try:
            async with self._trial.manager.session() as session:
                await run_actions.cancel(session, UUID(run_id))
        except Exception as error:
            if not is_transient(error):
                raise

    async def _kill(self, which: int) -> None:
        self._frozen.pop(self._staff[which], None)
        self._staff[which].kill()

    async def _freeze(self, which: int, seconds: float) -> None:
        worker = self._staff[which]
        if worker not in self._frozen and worker.alive:
            worker.pause()
            self._frozen[worker] = time.monotonic() + seconds

    async def _wake(self, now: float) -> None:
        for worker in [worker for worker, until in self._frozen.items() if until <= now]:
            # Redis tells it at once that others have its runs. Without that nothing but the fence does.
            await self._redis_command("CLIENT", "PAUSE", BLIND_MS)
            worker.resume()
            del self._frozen[worker]

    async def _flush(self) -> None:
        await self._redis_command("FLUSHALL")

    async def _redis_command(self, *words: str | int) -> None:
        try:
            await asyncio.to_thread(self._trial.redis.execute_command, *words)
        except redis.RedisError:
            self.deeds["Redis command that failed"] += 1

    async def _restart_redis(self, down_s: float) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(self._server.start)

    async def _end_sessions(self) -> None:
        dialect = "mysql" if self._trial.engine in {"mysql", "mariadb"} else self._trial.engine
        if dialect not in TERMINATE:
            return
        try:
            async with self._trial.manager.session() as session:
                found = list((await session.execute(text(TERMINATE[dialect]))).scalars())
                for session_id in found if dialect == "mysql" else ():
                    await session.execute(text(f"KILL {int(session_id)}"))
        except Exception as error:
            if not is_transient(error) and "Unknown thread" not in str(error):
                raise
