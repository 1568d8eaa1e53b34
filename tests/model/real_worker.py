"""A worker of real parts, engine, ledger and upkeep, of which nothing goes on by itself."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Any

from arq.connections import ArqRedis
from arq.worker import func

from db.connection import get_async_session
from db.repositories import job_run
from db.repositories.job_run import BornRun
from jobs.context import RunContext
from jobs.registry import load_jobs
from tests.model.gates import Strand, current
from tests.model.world import Duty
from worker.groups import Answer
from worker.ledger import Admission, Admitted
from worker.main import NO_LIMIT, worker_kwargs
from worker.queue import Worker
from worker.queue.claims import Claimed
from worker.queue.finish import Finish
from worker.retries import Outcome
from worker.run import job_function
from worker.runtime import Runtime
from worker.settings import Settings

PATIENCE_S = 20.0
LOSABLE = {"admit", "finish"}
"""The gates before one transaction of the ledger."""


class GatedLedger:
    """The grouped ledger, with gates before its transactions."""

    def __init__(self, runtime: Runtime) -> None:
        self._ledger = runtime.ledger

    def admit(self, born: BornRun) -> Answer[Admission]:
        return self._after("admit", self._ledger.admit, born)

    def admit_alone(self, born: BornRun) -> Answer[Admission]:
        return self._after("admit", self._ledger.admit_alone, born)

    def finish(self, admitted: Admitted, outcome: Outcome) -> Answer[Outcome]:
        return self._after("finish", self._ledger.finish, admitted, outcome)

    @staticmethod
    def _after(gate: str, function: Callable[..., Any], *args: Any) -> Answer[Any]:
        async def answer() -> Any:
            strand = current.get()
            assert strand is not None
            await strand.stop_at(gate)
            return await function(*args)

        return Answer.of(answer())


class RealWorker:
    """One worker; its number is what the rules call it.

    Args:
        settings: its settings.
        redis: connections that it shares with the others.
        number_of: tells the number of a run by its job id.
        max_jobs: its slots.
    """

    def __init__(self, settings: Settings, redis: ArqRedis, number_of: Callable[[str], int]) -> None:
        self.runtime = Runtime(settings, owns_queue=False)
        kwargs = worker_kwargs(settings, self.runtime) | {
            "functions": [
                func(self._driven(job_function(job)), name=job.kind, timeout=job.timeout_s, max_tries=NO_LIMIT)
                for job in load_jobs(settings).values()
            ],
            "redis_pool": redis,
            "redis_settings": None,
            "handle_signals": False,
        }
        self.worker = Worker(**kwargs)
        self.worker.lease_s = settings.lease_s
        self.worker.functions_see_aborts = True
        self.worker.ctx["runtime"] = self.runtime
        self.runtime.worker, self.runtime.redis = self.worker, redis
        self.runtime.ledger = GatedLedger(self.runtime)  # type: ignore[assignment]
        self.engine = self.worker.engine
        self.wrong: list[str] = []
        self._number_of = number_of
        self._moved = asyncio.Event()
        self._strands: dict[asyncio.Task[Any], Strand] = {}
        self._known: set[asyncio.Task[Any]] = set()
        self._finishes: list[Finish] = []
        self._submit = self.engine.finisher.submit
        self.engine.finisher.submit = self._finishes.append  # type: ignore[method-assign,assignment]
        self.engine.keeper.hold = self._hold  # type: ignore[method-assign]

    @property
    def token(self) -> bytes:
        """Who it is in Redis."""
        return self.engine.terms.token

    async def beat(self) -> None:
        async with get_async_session() as session:
            await self.runtime.heartbeat._beat(session)

    async def renew(self, renew: Any, reclaim: Any) -> None:
        """Renews by these scripts of a blocking client, as the thread of the leases does."""
        keeper = self.engine.keeper
        keeper._loop, keeper._renewed_at = asyncio.get_running_loop(), time.monotonic()
        keeper._renew_all(renew, reclaim)
        await asyncio.sleep(0)  # what it has to tell the event loop
        await self._rest()

    async def claim(self, *, lost: bool) -> None:
        free = self.worker.free_slots() if self.worker.allow_pick_jobs and not self.worker.paused_queues else 0
        if lost and free > 0:
            await self.engine.claimers[0].claim(free)
            self.engine.outage.failed_call_began = time.monotonic()
            self.engine.order.stumbled(ConnectionError("no answer"))
        elif free > 0:
            await self.worker._claim_in_order(self.engine)
        await self.worker._cancel_aborted_jobs()
        await self._rest()

    async def reap(self) -> None:
        self.engine.order._reap_at = 0.0
        await self.engine.order.keep()

    def drain(self) -> None:
        self.worker.allow_pick_jobs = False
        self.runtime.begin_draining()

    async def begin(self, duty: Duty) -> None:
        if duty in {strand.label for strand in self._strands.values()}:
            return
        its = self.runtime.upkeep
        begun: dict[Duty, Callable[[], Coroutine[Any, Any, None]]] = {
            "dispatch": its._dispatch,
            "sweep": its._sweep,
            "put back": its._put_back,
            "look": its._look_at_redis,
        }

        async def do() -> None:
            self._enter(duty)
            await begun[duty]()

        self._watch(asyncio.get_running_loop().create_task(do()))
        await self._rest()

    async def step(self, which: int, *, lost: bool) -> None:
        if strands := self._stopped():
            strand = strands[which % len(strands)]
            strand.loses_answer = lost and strand.gate in LOSABLE
            await self._go_on([strand])

    async def step_all(self) -> None:
        await self._go_on(self._stopped())

    async def step_duties(self) -> None:
        await self._go_on([strand for strand in self._stopped() if isinstance(strand.label, str)])

    async def tell(self, *, lost: bool) -> None:
        if lost:
            for finish in self._finishes:
                await self.engine.finisher._tell(finish.claimed.keys.all(), [finish])
            return
        finishes, self._finishes[:] = list(self._finishes), []
        for finish in finishes:
            self._submit(finish)
        await self.engine.finisher.drain()

    def performed(self) -> set[int]:
        return {self._number_of(claimed.job_id) for claimed in self.engine._running if not claimed.ending}

    async def crash(self) -> None:
        """Ends everything that it has begun, without a word to anybody."""
        for strand in self._strands.values():
            strand.crash()
        ends = await asyncio.gather(*self._known, return_exceptions=True)
        self._strands.clear()
        unexpected = [end for end in ends if isinstance(end, Exception)]
        assert not unexpected, unexpected

    def _stopped(self) -> list[Strand]:
        stopped = [strand for strand in self._strands.values() if strand.is_stopped]
        return sorted(stopped, key=lambda strand: (isinstance(strand.label, str), strand.label))

    async def _go_on(self, strands: Sequence[Strand]) -> None:
        for strand in strands:
            strand.go_on()
        await self._rest()

    async def _rest(self) -> None:
        """Returns when everything stands at a gate or is over."""
        async with asyncio.timeout(PATIENCE_S):
            while not self._rests():
                self._moved.clear()
                await self._moved.wait()
        for task in [task for task in self._strands if task.done()]:
            del self._strands[task]
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _rests(self) -> bool:
        tasks = {*self._known, *self.engine._running.values()}  # a duty that has just begun is no strand yet
        for task in tasks - self._known:
            self._watch(task)
        return all(task.done() or (task in self._strands and self._strands[task].is_stopped) for task in tasks)

    def _watch(self, task: asyncio.Task[Any]) -> None:
        self._known.add(task)
        task.add_done_callback(lambda _: self._moved.set())

    def _enter(self, label: int | str) -> None:
        task = asyncio.current_task()
        assert task is not None
        strand = Strand(label, self._moved, self._note_start)
        current.set(strand)
        self._strands[task] = strand

    def _driven(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def perform(ctx: Any, *args: Any, **kwargs: Any) -> Any:
            self._enter(self._number_of(ctx["job_id"]))
            return await function(ctx, *args, **kwargs)

        return perform

    async def _note_start(self, context: RunContext) -> None:
        async with get_async_session(read_only=True) as session:
            run = await job_run.get_run(session, context.run_id)
        mine = run is not None and run.worker_id == self.runtime.worker_id
        if run is None or not mine or not job_run.holds_fence(run, context.fence):
            self.wrong.append(f"run {self._number_of(str(context.run_id))} has started and was not admitted (I1)")

    def _hold(self, claims: list[Claimed]) -> None:
        # Without the thread: renewing is a step, too.
        self.engine.keeper._held.update({claimed.raw_id: claimed for claimed in claims})
