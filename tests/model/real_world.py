"""The same steps with the real parts: scripts in a Redis, the ledger's code on a database, workers in one process."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import select

from db.connection import get_async_session
from db.models import JobAttempt
from db.repositories import run_actions
from holdfast import outbox, wire
from holdfast.ids import uuid7
from holdfast.outbox import job_runs
from holdfast.states import RunState
from tests.faults.effects import effects
from tests.faults.history import Asked, Expected, check_history
from tests.model.real_clocks import move_database_clock, move_redis_clock
from tests.model.real_kinds import Walk, Walked
from tests.model.real_stage import Stage
from tests.model.real_worker import RealWorker
from tests.model.world import Clock, Duty, Ended, Picture, Seen
from worker import cancellations
from worker.queue.scripts import QueueKeys
from worker.reconcile import COMPARED_SUFFIX

ANY_END = frozenset({RunState.SUCCEEDED, RunState.CANCELLED, RunState.QUARANTINED})
"""The judge looks at which of them it may be."""

KEYS = QueueKeys(wire.DEFAULT_QUEUE)
NO_RUNS = (COMPARED_SUFFIX, ":health-check", ":bell", wire.ABORT_KEY)
"""Keys that tell nothing of a run end so."""


class RealWorld:
    """See `World` for the steps.

    Args:
        on: where it plays.
    """

    def __init__(self, on: Stage) -> None:
        self._on = on
        self._run = on.run
        self._workers: dict[int, RealWorker] = {}
        self._names: dict[str, int] = {}
        self._tokens: dict[bytes, int] = {}
        self._runs: list[tuple[str, int, str | None]] = []
        self._numbers: dict[str, int] = {}
        self._replica: dict[bytes, bytes] = {}
        self._wrong: list[str] = []
        self._run(on.empty())

    def enqueue(self, steps: int, key: str | None) -> None:
        run_id = uuid7()
        self._ask(str(run_id), steps, key)
        self._run(self._enqueue(run_id, steps, key))

    async def _enqueue(self, run_id: UUID, steps: int, key: str | None) -> None:
        async with get_async_session() as session:
            await outbox.enqueue(session, Walk(steps=steps), run_id=run_id, unique_key=key)

    def send(self, steps: int) -> None:
        run_id = str(uuid7())
        self._ask(run_id, steps, None)
        self._run(self._on.client.enqueue(Walk(steps=steps), run_id=run_id))

    def cancel(self, run: int) -> None:
        self._run(self._cancel(UUID(self._runs[run - 1][0])))

    async def _cancel(self, run_id: UUID) -> None:
        async with get_async_session() as session:
            state = await run_actions.cancel(session, run_id)
        if state is RunState.CANCELLED:
            async with get_async_session(read_only=True) as session:
                row = (await session.execute(select(job_runs).where(job_runs.c.id == run_id))).one()
            await cancellations.tell_cancelled(self._on.redis, row)

    def abort(self, run: int) -> None:
        handle = self._on.client.run(self._runs[run - 1][0], Walked, born_in_ledger=True)
        self._run(handle.cancel())

    def hire(self) -> None:
        self._run(self._hire())

    async def _hire(self) -> None:
        number = len(self._names) + 1
        worker = RealWorker(self._on.settings, self._on.redis, self._numbers.__getitem__)
        self._workers[number] = worker
        self._names[worker.runtime.worker_id] = self._tokens[worker.token] = number
        await worker.beat()

    def crash(self, worker: int) -> None:
        its = self._workers.pop(worker)
        self._wrong += its.wrong
        self._run(its.crash())

    def drain(self, worker: int) -> None:
        self._workers[worker].drain()

    def flush(self) -> None:
        self._on.blocking.flushall()

    def remember(self) -> None:
        self._replica = {key: self._on.blocking.dump(key) for key in self._on.blocking.keys("*")}

    def rewind(self) -> None:
        self.flush()
        for key, value in self._replica.items():
            if not key.endswith(COMPARED_SUFFIX.encode()):  # another server answers
                self._on.blocking.restore(key, 0, value)

    def move_clock(self, clock: Clock, ticks: int) -> None:
        self._run(self._move_clock(clock, ticks))

    async def _move_clock(self, clock: Clock, ticks: int) -> None:
        if clock == "redis":
            await move_redis_clock(self._on.redis, ticks)
            return
        async with get_async_session() as session:
            await move_database_clock(session, ticks)

    def beat(self, worker: int) -> None:
        self._run(self._workers[worker].beat())

    def renew(self, worker: int) -> None:
        self._run(self._workers[worker].renew(*self._on.scripts))

    def claim(self, worker: int, *, lost: bool = False) -> None:
        self._run(self._workers[worker].claim(lost=lost))

    def reap(self, worker: int) -> None:
        self._run(self._workers[worker].reap())

    def begin(self, worker: int, duty: Duty) -> None:
        self._run(self._workers[worker].begin(duty))

    def step(self, worker: int, which: int, *, lost: bool = False) -> None:
        self._run(self._workers[worker].step(which, lost=lost))

    def step_all(self, worker: int) -> None:
        self._run(self._workers[worker].step_all())

    def step_duties(self, worker: int) -> None:
        self._run(self._workers[worker].step_duties())

    def tell(self, worker: int, *, lost: bool = False) -> None:
        self._run(self._workers[worker].tell(lost=lost))

    def owners(self) -> dict[int, int]:
        owners = self._on.blocking.hgetall(KEYS.all()[3])
        return {
            self._numbers[job_id.decode()]: self._tokens.get(owner.partition(b":")[0], 0)
            for job_id, owner in owners.items()
        }

    def performed(self, worker: int) -> set[int]:
        return self._workers[worker].performed()

    def picture(self) -> Picture:
        runs, attempts = self._run(self._read())
        keys = [wire.RESULT_KEY + job_id for job_id, _, _ in self._runs]
        results = self._on.blocking.mget(keys) if keys else []
        told = {run: bool(wire.loads(data)["s"]) for run, data in enumerate(results, start=1) if data is not None}
        wrong = [*self._wrong, *(words for worker in self._workers.values() for words in worker.wrong)]
        return Picture(runs, attempts, told, self._left(), wrong)

    async def _read(self) -> tuple[dict[int, Seen], list[Ended]]:
        async with get_async_session(read_only=True) as session:
            rows = (await session.execute(select(job_runs.c.job_id, job_runs.c.state, job_runs.c.fence))).all()
            done = (await session.execute(select(effects.c.run_id, effects.c.step).order_by(effects.c.step))).all()
            ended = (await session.execute(select(JobAttempt).order_by(JobAttempt.finished_at))).scalars().all()
        runs = {}
        for job_id, state, fence in rows:
            run = self._numbers[job_id]
            _, steps, key = self._runs[run - 1]
            taken = tuple(step for run_id, step in done if str(run_id) == job_id)
            runs[run] = Seen(RunState(state), fence, steps, key, taken)
        attempts = [
            Ended(self._numbers[str(each.run_id)], each.fence, self._names[each.worker_id], each.outcome)
            for each in ended
        ]
        return runs, attempts

    def _left(self) -> list[str]:
        found = [key.decode() for key in self._on.blocking.keys("arq:*")]
        return sorted(key for key in found if not key.startswith(wire.RESULT_KEY) and not key.endswith(NO_RUNS))

    def _ask(self, job_id: str, steps: int, key: str | None) -> None:
        self._runs.append((job_id, steps, key))
        self._numbers[job_id] = len(self._runs)

    def history(self, promised: Collection[int]) -> list[str]:
        asked = Asked()
        for run, (job_id, steps, _) in enumerate(self._runs, start=1):
            expected = Expected(steps, ANY_END, atomic=False, most_charged=0)
            (asked.acknowledged if run in promised else asked.unsure)[job_id].append(expected)
        return self._run(check_history(self._on.manager, asked, left_in_redis=self._left())).problems

    def close(self) -> None:
        for worker in list(self._workers):
            self.crash(worker)
