"""Ledger, Redis and workers as data: what `docs` call admission, batches, acknowledgement, dispatch and reconcile.

Each method is one step that nobody sees half done: a transaction, or a script in Redis. Between two of them anything
may happen. `FLAWS` are mistakes that can be planted, to see that they are found.
"""

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Literal

from db.models import NEXT_STATES
from holdfast.states import RunState

Flaw = Literal[
    "no fence in a batch",
    "no fence at the end",
    "told before the commit",
    "living workers count as dead",
    "over runs start again",
    "effect and cursor apart",
    "put back without a second look",
    "marked before it is put",
]
FLAWS: tuple[Flaw, ...] = Flaw.__args__  # type: ignore[attr-defined]

LEASE = 3
"""Ticks of Redis's clock for which a claim holds."""
DEAD_AFTER = 4
"""Ticks of the database's clock after which a silent worker counts as dead."""
SUSPECT_AFTER = 2


@dataclass(slots=True)
class Row:
    """A run in the ledger."""

    steps: int
    key: str | None = None
    state: RunState = RunState.WAITING
    fence: int = 0
    worker: int | None = None
    started_at: int = 0
    crashes: int = 0
    cursor: int = 0
    has_key: bool = False
    was_put_back: bool = False
    dispatched: bool = False
    cancel_requested: bool = False
    outcomes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Redis:
    """What Redis may forget at any time."""

    queue: dict[int, int] = field(default_factory=dict)
    leases: dict[int, int] = field(default_factory=dict)
    owners: dict[int, int] = field(default_factory=dict)
    payloads: dict[int, int] = field(default_factory=dict)
    """Run -> its steps."""
    intake: list[int] = field(default_factory=list)
    results: dict[int, RunState] = field(default_factory=dict)


@dataclass(slots=True)
class Hand:
    """One claimed entry in a worker's hands."""

    phase: Literal["claimed", "admitted", "ended"] = "claimed"
    fence: int = 0
    position: int = 0
    end: RunState | None = None
    """What Redis is to hear; None: the entry goes back."""


@dataclass(slots=True)
class Worker:
    """A process; paused ones do nothing, dead ones are gone."""

    beat_at: int
    paused: bool = False
    hands: dict[int, Hand] = field(default_factory=dict)
    read: list[int] = field(default_factory=list)
    """What its dispatch has read and not yet put."""
    put: list[int] = field(default_factory=list)
    """What it has put and not yet marked."""


class Protocol:
    """The whole of it.

    Args:
        flaw: a planted mistake.
    """

    def __init__(self, flaw: Flaw | None = None) -> None:
        self.flaw = flaw
        self.rows: dict[int, Row] = {}
        self.redis = Redis()
        self.workers: dict[int, Worker] = {}
        self.redis_now = self.db_now = 0
        self.effects: Counter[tuple[int, int]] = Counter()
        self.ended: dict[int, RunState] = {}
        self.violations: list[str] = []
        self._unwritten: dict[tuple[int, int], int] = {}
        self._workers = self._runs = 0

    # Producers

    def enqueue_outbox(self, steps: int, key: str | None) -> None:
        """Commits a run in a producer's transaction."""
        self._runs += 1
        self.rows[self._runs] = Row(steps, key)

    def enqueue_direct(self, steps: int) -> None:
        """Puts a run straight into Redis, and announces it."""
        self._runs += 1
        self.redis.payloads[self._runs] = steps
        self.redis.queue[self._runs] = self.redis_now
        self.redis.intake.append(self._runs)

    def cancel(self, run: int) -> None:
        """An operator does not want it any more."""
        row = self.rows[run]
        if row.state is RunState.WAITING:
            self._enter(run, RunState.CANCELLED)
        elif row.state is RunState.RUNNING:
            row.cancel_requested = True

    # Faults

    def hire(self) -> None:
        """A worker starts."""
        self._workers += 1
        self.workers[self._workers] = Worker(self.db_now)

    def crash(self, worker: int) -> None:
        """kill -9."""
        del self.workers[worker]

    def flush(self) -> None:
        """Redis is emptied."""
        self.redis = Redis()

    def rewind(self, earlier: Redis) -> None:
        """Redis is replaced by what it once was: a replica that lagged, a log that was not flushed."""
        self.redis = deepcopy(earlier)

    # A worker's steps

    def beat(self, worker: int) -> None:
        """Says in the ledger that it lives."""
        self.workers[worker].beat_at = self.db_now

    def claim(self, worker: int, run: int) -> None:
        """Leases an entry that is due and free."""
        redis = self.redis
        is_due = redis.queue.get(run, self.redis_now + 1) <= self.redis_now
        if not is_due or self._lease_holds(run) or run in self.workers[worker].hands:
            return
        self._lease(worker, run)
        self.workers[worker].hands[run] = Hand()

    def renew(self, worker: int) -> None:
        """Renews its leases; takes again what Redis forgot, and drops what others have."""
        redis, hands = self.redis, self.workers[worker].hands
        for run, hand in list(hands.items()):
            owner = redis.owners.get(run)
            if owner == worker or (owner is None and run not in redis.results):
                redis.payloads.setdefault(run, self._steps_of(run))
                self._lease(worker, run)
            elif hand.phase == "claimed":
                del hands[run]
            elif hand.phase == "admitted":
                self._end_attempt(run, hand, "interrupted")

    def admit(self, worker: int, run: int) -> None:
        """Enters the run if it is new and starts it, if it may start (I1, I3)."""
        hand = self.workers[worker].hands[run]
        if hand.phase != "claimed":
            return
        row = self.rows.setdefault(run, Row(self._steps_of(run), dispatched=True))
        if row.state.is_over and self.flaw != "over runs start again":
            hand.phase, hand.end = "ended", row.state
            return
        if row.state is RunState.RUNNING:
            if not self._is_silent(row, by=worker):
                hand.phase, hand.end = "ended", None
                return
            self._charge_crash(run)
        if row.state is RunState.WAITING and row.cancel_requested:
            self._enter(run, RunState.CANCELLED)
        if row.state is RunState.WAITING and not self._takes_key(run):
            self._enter(run, RunState.CANCELLED)
        if row.state.is_over and self.flaw != "over runs start again":
            hand.phase, hand.end = "ended", row.state
            return
        self._enter(run, RunState.RUNNING)
        row.fence, row.worker, row.started_at, row.was_put_back = row.fence + 1, worker, self.db_now, False
        hand.phase, hand.fence, hand.position = "admitted", row.fence, row.cursor

    def batch(self, worker: int, run: int) -> None:
        """Commits the next step's effect and its cursor."""
        hand, row = self.workers[worker].hands[run], self.rows[run]
        if hand.phase != "admitted" or hand.position >= row.steps:
            return
        if self.flaw != "no fence in a batch" and not self._holds(row, hand):
            hand.phase, hand.end = "ended", row.state if row.state.is_over else None
            return
        if row.cancel_requested:
            self._end_attempt(run, hand, "cancelled")
            return
        hand.position += 1
        self.effects[run, hand.position] += 1
        if self.flaw == "effect and cursor apart":
            self._unwritten[worker, run] = hand.position
        else:
            row.cursor, row.crashes = max(row.cursor, hand.position), 0

    def write_cursor(self, worker: int, run: int) -> None:
        """Writes a cursor that was left out of its batch's transaction: only the flaw leaves one."""
        position = self._unwritten.pop((worker, run), None)
        if position is not None:
            self.rows[run].cursor, self.rows[run].crashes = position, 0

    def finish(self, worker: int, run: int) -> None:
        """Commits the end of a run that is through (I2: before Redis hears of it)."""
        hand = self.workers[worker].hands[run]
        if hand.phase == "admitted" and hand.position >= self.rows[run].steps:
            self._end_attempt(run, hand, "succeeded")

    def interrupt(self, worker: int, run: int) -> None:
        """Puts a run down because the worker is to stop."""
        hand = self.workers[worker].hands[run]
        if hand.phase == "admitted":
            self._end_attempt(run, hand, "interrupted")

    def tell(self, worker: int, run: int) -> None:
        """Lets Redis hear how the claim ended, unless somebody else has it."""
        redis, hands = self.redis, self.workers[worker].hands
        hand = hands[run]
        if self.flaw == "told before the commit" and hand.phase == "admitted":
            if hand.position >= self.rows[run].steps and redis.owners.get(run) in {worker, None}:
                redis.results[run] = RunState.SUCCEEDED
                self._forget(run)
            return
        if hand.phase != "ended":
            return
        del hands[run]
        owner = redis.owners.get(run)
        if owner not in {worker, None} or (owner is None and run in redis.results):
            return
        if hand.end is None:
            redis.payloads.setdefault(run, self._steps_of(run))
            redis.queue[run] = self.redis_now
            self._release(run)
        else:
            redis.results[run] = hand.end
            self._forget(run)

    # Upkeep

    def take_in(self) -> None:
        """Enters what was announced into the ledger."""
        while self.redis.intake:
            run = self.redis.intake.pop(0)
            if run in self.redis.payloads:
                self.rows.setdefault(run, Row(self.redis.payloads[run], dispatched=True))

    def read_due(self, worker: int) -> None:
        """Dispatch, first step: reads what waits and is not in Redis yet."""
        due = [run for run, row in self.rows.items() if row.state is RunState.WAITING and not row.dispatched]
        self.workers[worker].read = due
        if self.flaw == "marked before it is put":
            self._mark(due)

    def put_due(self, worker: int) -> None:
        """Dispatch, second step: puts it there."""
        its = self.workers[worker]
        for run in its.read:
            self._put(run)
        its.put, its.read = its.read, []

    def mark_due(self, worker: int) -> None:
        """Dispatch, third step: notes in the ledger that it is there."""
        its = self.workers[worker]
        self._mark(its.put)
        its.put = []

    def reconcile(self) -> None:
        """Puts what waits and is missing in Redis there again."""
        if self.flaw == "marked before it is put":
            return  # nothing else would heal it: that is how it is seen
        for run, row in self.rows.items():
            if row.state is RunState.WAITING and (run not in self.redis.queue or row.was_put_back):
                self._put(run)

    def reap(self) -> None:
        """Returns entries whose lease has run out to their place."""
        for run in [run for run in self.redis.leases if not self._lease_holds(run)]:
            if run in self.redis.queue:
                self.redis.queue[run] = self.redis_now
            self._release(run)

    def look_for_orphans(self, worker: int) -> list[tuple[int, int]]:
        """Put-back, first step: returns running runs whose worker is silent, with their fences."""
        running = [(run, row) for run, row in self.rows.items() if row.state is RunState.RUNNING]
        return [(run, row.fence) for run, row in running if self._is_silent(row, by=worker, run=run)]

    def put_back(self, worker: int, run: int, fence: int) -> None:
        """Put-back, second step: looks once more under the lock, charges a crash, and lets the run wait."""
        row = self.rows[run]
        if row.state is not RunState.RUNNING:
            return
        still = row.fence == fence and self._is_silent(row, by=worker, run=run)
        if still or self.flaw == "put back without a second look":
            self._charge_crash(run)

    # What the steps are made of

    def _steps_of(self, run: int) -> int:
        return self.rows[run].steps if run in self.rows else self.redis.payloads.get(run, 1)

    def _lease_holds(self, run: int) -> bool:
        return self.redis.leases.get(run, self.redis_now) > self.redis_now

    def _lease(self, worker: int, run: int) -> None:
        end = self.redis_now + LEASE
        self.redis.queue[run] = self.redis.leases[run] = end
        self.redis.owners[run] = worker

    def _release(self, run: int) -> None:
        self.redis.leases.pop(run, None)
        self.redis.owners.pop(run, None)

    def _forget(self, run: int) -> None:
        self._release(run)
        self.redis.queue.pop(run, None)
        self.redis.payloads.pop(run, None)

    def _put(self, run: int) -> None:
        row = self.rows[run]
        anew = row.was_put_back and not self._lease_holds(run)
        self.redis.payloads[run] = row.steps
        if anew or run not in self.redis.queue:
            self.redis.queue[run] = self.redis_now

    def _mark(self, runs: list[int]) -> None:
        for run in runs:
            if self.rows[run].state is RunState.WAITING:
                self.rows[run].dispatched = True

    def _is_silent(self, row: Row, *, by: int, run: int | None = None) -> bool:
        """Whether the worker of a running run counts as dead, for the one who looks."""
        if self.flaw == "living workers count as dead":
            return True
        if row.worker == by:  # its own: admitted, and never heard of
            held = self.workers[by].hands.get(run) if run is not None else None
            is_active = held is not None and held.phase == "admitted" and held.fence == row.fence
            return not is_active and (run is None or row.started_at < self.db_now - DEAD_AFTER)
        its = self.workers.get(row.worker or 0)
        # A dead worker's last sign of life ages as any other; a model of time needs no more than that it ages.
        return its is None or its.beat_at < self.db_now - DEAD_AFTER

    def _takes_key(self, run: int) -> bool:
        row = self.rows[run]
        if row.key is None or row.has_key:
            return True
        row.has_key = not any(other.has_key and other.key == row.key for other in self.rows.values())
        return row.has_key

    @staticmethod
    def _holds(row: Row, hand: Hand) -> bool:
        return row.fence == hand.fence and row.state is RunState.RUNNING

    def _end_attempt(self, run: int, hand: Hand, outcome: str) -> None:
        row = self.rows[run]
        if not self._holds(row, hand) and self.flaw != "no fence at the end":
            hand.phase, hand.end = "ended", row.state if row.state.is_over else None
            return
        row.outcomes.append(outcome)
        state = RunState.WAITING if outcome == "interrupted" else RunState(outcome)
        self._enter(run, state)
        hand.phase, hand.end = "ended", state if state.is_over else None

    def _charge_crash(self, run: int) -> None:
        row = self.rows[run]
        its = self.workers.get(row.worker or 0)
        if its is not None and not its.paused and its.beat_at >= self.db_now - DEAD_AFTER and run in its.hands:
            self.violations.append(f"run {run} was taken from worker {row.worker}, which lives")
        row.outcomes.append("crashed")
        is_to_blame = row.crashes >= SUSPECT_AFTER
        row.crashes += 1
        self._enter(run, RunState.QUARANTINED if is_to_blame else RunState.WAITING)
        row.was_put_back, row.dispatched = True, False

    def _enter(self, run: int, state: RunState) -> None:
        row = self.rows[run]
        if state not in NEXT_STATES[row.state]:
            self.violations.append(f"run {run}: {row.state} was followed by {state}")
        row.state = state
        if state.is_over:
            row.has_key = False
            if self.ended.setdefault(run, state) is not state:
                self.violations.append(f"run {run} ended twice: {self.ended[run]}, then {state}")
