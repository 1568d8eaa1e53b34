"""The protocol as data: what workers do with the ledger and Redis, stopped between any two steps.

What a worker has begun is a generator: it yields wherever the worker may be stopped for good, and what it does between
two yields is one transaction of the ledger, or one script in Redis.
"""

from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, field

from holdfast.states import RunState
from tests.model.model_ledger import Flaw, ModelLedger
from tests.model.model_redis import Claim, ModelRedis
from tests.model.world import SLOTS, Clock, Duty, Picture

Strand = Generator[None, bool | None, RunState | None]
"""Is sent whether the answer to its next commit is lost; returns what Redis is to hear of a run, None: it goes back."""


@dataclass(slots=True)
class Worker:
    """A process."""

    number: int
    is_draining: bool = False
    is_blind: bool = False
    """Whether Redis may have given it claims of which it was not told."""
    runs: dict[int, Strand] = field(default_factory=dict)
    calls: int = 0
    """So often it has claimed."""
    claims: dict[int, Claim] = field(default_factory=dict)
    """By which of its claims it has a run."""
    duties: dict[Duty, Strand] = field(default_factory=dict)
    active: set[int] = field(default_factory=set)
    """The runs that it performs, as far as it knows."""
    taken_away: set[int] = field(default_factory=set)
    """The runs of which Redis has told it that somebody else has them."""
    unwanted: set[int] = field(default_factory=set)
    """The runs of which Redis has told it that they were cancelled."""
    ends: dict[tuple[int, Claim], RunState | None] = field(default_factory=dict)
    """What Redis is to hear."""

    def held(self) -> set[int]:
        """Returns the runs that it performs, or of whose end Redis is to hear."""
        return {*self.runs, *(run for run, _ in self.ends)}


class Protocol:
    """The whole of it; see `World` for the steps.

    Args:
        flaw: a planted mistake.
    """

    def __init__(self, flaw: Flaw | None = None) -> None:
        self.flaw = flaw
        self.ledger = ModelLedger(flaw)
        self.redis = ModelRedis(
            asks_for_the_token=flaw != "no token in a renewal",
            ends_own_claims_only=flaw != "no token at the end of a claim",
            asks_for_the_number=flaw != "no number at the end of a claim",
        )
        self.workers: dict[int, Worker] = {}
        self._steps: list[int] = []
        """Of each run that was asked for."""
        self._hired = 0

    def enqueue(self, steps: int, key: str | None) -> None:
        self._steps.append(steps)
        self.ledger.insert(len(self._steps), steps, key)

    def send(self, steps: int) -> None:
        self._steps.append(steps)
        self.redis.send(len(self._steps), steps)

    def cancel(self, run: int) -> None:
        if self.ledger.cancel(run):
            self.redis.tell_unclaimed(run, RunState.CANCELLED)

    def abort(self, run: int) -> None:
        self.redis.abort(run)

    def hire(self) -> None:
        self._hired += 1
        self.workers[self._hired] = Worker(self._hired)
        self.beat(self._hired)

    def crash(self, worker: int) -> None:
        del self.workers[worker], self.ledger.beats[worker]

    def drain(self, worker: int) -> None:
        self.workers[worker].is_draining = True

    def flush(self) -> None:
        self.redis.flush()

    def remember(self) -> None:
        self.redis.remember()

    def rewind(self) -> None:
        self.redis.rewind()

    def move_clock(self, clock: Clock, ticks: int) -> None:
        if clock == "redis":
            self.redis.now += ticks
        else:
            self.ledger.now += ticks

    def beat(self, worker: int) -> None:
        self.ledger.beats[worker] = self.ledger.now

    def renew(self, worker: int) -> None:
        its = self.workers[worker]
        for run, claim in its.ends:
            if run not in its.runs:
                self.redis.renew(claim, run, None)
        for run in its.runs:
            if not self.redis.renew(its.claims[run], run, self._steps[run - 1]):
                its.taken_away.add(run)

    def claim(self, worker: int, *, lost: bool = False) -> None:
        its = self.workers[worker]
        its.unwanted |= self.redis.keys.aborts & its.active
        if its.is_draining or self.ledger.has_suspect(its.active):
            return
        # One whose end Redis has heard, though it did not say so, may be claimed again.
        ending = {run for run, _ in its.ends if self.redis.is_owned_by(worker, run)}
        its.calls += 1
        claimed = self.redis.claim((worker, its.calls), SLOTS - len(its.runs), but={*its.runs, *ending})
        its.is_blind = its.is_blind or lost
        for run in claimed if not lost else ():
            its.claims[run] = (worker, its.calls)
            its.runs[run] = self._perform(its, run)
            self._go_on(its, run, lost=None)

    def reap(self, worker: int) -> None:
        its = self.workers[worker]
        if its.is_blind:
            self.redis.recover(worker, but=its.held())
            its.is_blind = False
        self.redis.reap(worker)

    def begin(self, worker: int, duty: Duty) -> None:
        its = self.workers[worker]
        begun = {"dispatch": self._dispatch, "sweep": self._sweep, "look": self._look}
        if duty not in its.duties:
            its.duties[duty] = self._put_back(its) if duty == "put back" else begun[duty]()
            self._go_on(its, duty)

    def step(self, worker: int, which: int, *, lost: bool = False) -> None:
        its = self.workers[worker]
        if strands := [*sorted(its.runs), *sorted(its.duties)]:
            self._go_on(its, strands[which % len(strands)], lost=lost)

    def step_all(self, worker: int) -> None:
        its = self.workers[worker]
        for run in sorted(its.runs):
            self._go_on(its, run)
        self.step_duties(worker)

    def step_duties(self, worker: int) -> None:
        its = self.workers[worker]
        for duty in sorted(its.duties):
            self._go_on(its, duty)

    def tell(self, worker: int, *, lost: bool = False) -> None:
        ends = self.workers[worker].ends
        for (run, claim), end in ends.items():
            self.redis.tell(claim, run, end, self._steps[run - 1])
        if not lost:
            ends.clear()

    def owners(self) -> dict[int, int]:
        return {run: worker for run, (worker, _) in self.redis.keys.owners.items()}

    def performed(self, worker: int) -> set[int]:
        return set(self.workers[worker].runs)

    def picture(self) -> Picture:
        runs = {run: self.ledger.seen(run) for run in self.ledger.rows}
        told = {run: state is RunState.SUCCEEDED for run, state in self.redis.keys.results.items()}
        return Picture(runs, tuple(self.ledger.attempts), told, self.redis.left(), tuple(self.ledger.wrong))

    def history(self, promised: Collection[int]) -> list[str]:
        del promised
        return []

    def close(self) -> None:
        self.workers.clear()

    # What workers begin

    def _perform(self, its: Worker, run: int) -> Strand:
        if run in self.redis.keys.aborts:
            return self.ledger.refuse(run, self._steps[run - 1])
        lost = yield
        if self.flaw == "started before the admission":
            self.ledger.take_effect(run, 1)
            lost = yield
        admission = self.ledger.admit(its.number, run, self._steps[run - 1], active=its.active)
        if lost or admission is None:
            return None
        if isinstance(admission, RunState):
            return admission
        its.active.add(run)
        outcome = yield from self._walk(its, run, admission)
        if outcome == "succeeded" and self.flaw == "told before the commit":
            self.redis.tell(its.claims[run], run, RunState.SUCCEEDED, self._steps[run - 1])
        lost = yield
        end = self.ledger.finish(run, admission, outcome)
        if lost:  # then it is asked again, and the fence does not hold any more
            yield
            end = self.ledger.finish(run, admission, outcome)
        return end

    def _walk(self, its: Worker, run: int, fence: int) -> Generator[None, bool | None, str]:
        """Walks the batches of a run from its cursor on; returns the outcome."""
        row = self.ledger.rows[run]
        position = row.cursor
        while position < row.steps:
            yield
            if its.is_draining or run in its.taken_away - its.unwanted:
                return "interrupted"
            if not self.ledger.holds(run, fence) and self.flaw != "no fence in a batch":
                return "lost"
            if row.cancel_requested or run in its.unwanted:
                return "cancelled"
            position += 1
            self.ledger.take_effect(run, position)
            if self.flaw == "effect and cursor apart":
                yield
            self.ledger.move_cursor(run, position)
        return "succeeded"

    def _dispatch(self) -> Strand:
        due = [run for run in self.ledger.waiting() if not self.ledger.rows[run].dispatched]
        if self.flaw == "marked before it is put":
            self.ledger.mark_dispatched(due)
        yield
        put = [run for run in due if self._put(run)]
        yield
        self.ledger.mark_dispatched(put)
        return None

    def _sweep(self) -> Strand:
        yield from self._dispatch()
        yield from self._compare()
        return None

    def _compare(self) -> Iterator[None]:
        if self.flaw in {"what waits is not compared", "marked before it is put"}:
            return  # nothing else would mend the second one: that is how it is seen
        queue, rows = self.redis.keys.queue, self.ledger.rows
        missing = [run for run in self.ledger.waiting() if run not in queue or rows[run].was_put_back]
        yield
        for run in missing:
            if rows[run].state is RunState.WAITING:
                self._put(run)

    def _look(self) -> Strand:
        keys = self.redis.keys
        announced, keys.intake = keys.intake, []
        if not keys.has_sentinel:
            yield from self._compare()
            self.redis.keys.has_sentinel = True
        yield
        for run in sorted(keys.aborts):
            self.cancel(run)
        for run in announced:
            if run in self.redis.keys.payloads:
                self.ledger.insert(run, self.redis.keys.payloads[run], None, dispatched=True)
        return None

    def _put_back(self, its: Worker) -> Strand:
        for run, fence in self.ledger.orphans(its.number, its.active).items():
            yield
            self.ledger.put_back(its.number, run, fence, active=its.active)
        return None

    def _put(self, run: int) -> bool:
        """Puts a run into Redis, unless it ends here; returns whether it did."""
        if self.ledger.end_unwanted(run):
            self.redis.tell_unclaimed(run, RunState.CANCELLED)
            return False
        row = self.ledger.rows[run]
        self.redis.put(run, row.steps, anew=row.was_put_back)
        return True

    def _go_on(self, its: Worker, strand: int | Duty, *, lost: bool | None = False) -> None:
        try:
            if isinstance(strand, int):
                its.runs[strand].send(lost)
            else:
                next(its.duties[strand])
        except StopIteration as over:
            if isinstance(strand, int):
                del its.runs[strand]
                its.ends[strand, its.claims.pop(strand)] = over.value
                its.active.discard(strand)
                its.taken_away.discard(strand)
                its.unwanted.discard(strand)
            else:
                del its.duties[strand]
