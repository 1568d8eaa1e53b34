"""What may happen, in any order: hypothesis draws it, shrinks what went wrong, and prints the steps."""

import sys
from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.model.judge import Judge
from tests.model.world import DEAD_AFTER, DUTIES, LEASE, Clock, Duty, World

FIRST_WORKERS = 3
MOST_WORKERS = 4
MOST_RUNS = 4
ROUNDS = 25
"""So often everybody may do everything once more, before what is not over then counts as lost."""
STEPS_OF_A_DUTY = 6
SOME = st.integers(0, 3)
"""Which of a few."""


class Rules(RuleBasedStateMachine):
    """Workers, producers and faults over a world; `machine` binds it to one."""

    make_world: ClassVar[Callable[[], World]]

    def __init__(self) -> None:
        super().__init__()
        self.world = type(self).make_world()
        self.judge = Judge()
        self.workers: list[int] = []
        self.hired = self.asked = self.now = 0
        self.paused: set[int] = set()
        self.drained: set[int] = set()
        self.unsure: set[int] = set()
        """Those that stood still, or missed an answer of the ledger."""
        self.heard_at: dict[int, int] = {}
        self.promised: set[int] = set()
        self.is_calm = True
        """Whether no clock was set and Redis forgot nothing."""

    @initialize()
    def begin(self) -> None:
        """There are workers."""
        for _ in range(FIRST_WORKERS):
            self._hire()

    # Producers and operators

    @precondition(lambda self: self.asked < MOST_RUNS)
    @rule(steps=st.integers(1, 2), door=st.sampled_from(["outbox", "outbox", "with a key", "client"]))
    def enqueue(self, steps: int, door: str) -> None:
        """By the outbox it is promised from now on; by the client once the ledger has it."""
        self.asked += 1
        self.judge.ask(self.asked)
        if door == "client":
            self.world.send(steps)
        else:
            self.world.enqueue(steps, "k" if door == "with a key" else None)
            self.promised.add(self.asked)

    @precondition(lambda self: self.asked > 0)
    @rule(which=SOME, by=st.sampled_from(["operator", "producer"]))
    def cancel(self, which: int, by: str) -> None:
        """An operator cancels a run in the ledger, or its producer in Redis."""
        run = 1 + which % self.asked
        if by == "operator":
            self.world.cancel(run)
        else:
            self.world.abort(run)
        self.judge.cancel(run)

    # Faults

    @precondition(lambda self: len(self.workers) < MOST_WORKERS)
    @rule()
    def hire(self) -> None:
        """A worker starts."""
        self._hire()

    @precondition(lambda self: self.workers)
    @rule(which=SOME, seen_by=st.sampled_from([None, 0, 1]))
    def crash(self, which: int, seen_by: int | None) -> None:
        """A worker is killed; perhaps another one is just looking for the runs of dead workers."""
        worker = self.workers.pop(which % len(self.workers))
        self.paused.discard(worker)
        self.world.crash(worker)
        if seen_by is not None and self._awake:
            self.world.begin(self._pick(seen_by), "put back")

    @precondition(lambda self: self._awake)
    @rule(which=SOME)
    def pause(self, which: int) -> None:
        """A worker is stopped where it stands."""
        worker = self._pick(which)
        self.paused.add(worker)
        self.unsure.add(worker)

    @precondition(lambda self: len(self._awake) > 1)
    @rule(which=SOME, other=SOME, times=st.integers(1, 4), duty=st.sampled_from([None, *DUTIES]))
    def be_overtaken(self, which: int, other: int, times: int, duty: Duty | None) -> None:
        """A worker is stopped for so long that it counts as dead, and another one works; then it goes on as before."""
        worker = self._pick(which)
        if duty is not None:
            self.world.begin(worker, duty)
        self.pause(which)
        self.let_time_pass(DEAD_AFTER + 1)
        self.work(other, times)
        self.paused.discard(worker)
        self.world.step_all(worker)

    @precondition(lambda self: self.paused)
    @rule()
    def wake(self) -> None:
        """Who was stopped goes on, and knows nothing of it."""
        self.paused.clear()

    @precondition(lambda self: self._awake)
    @rule(which=SOME)
    def drain(self, which: int) -> None:
        """A worker is told to stop."""
        worker = self._pick(which)
        self.drained.add(worker)
        self.world.drain(worker)

    @rule(how=st.sampled_from(["flush", "remember", "rewind"]))
    def lose_redis(self, how: str) -> None:
        """It is emptied; or a replica hears of nothing more from now on; or that replica takes over."""
        if how == "flush":
            self.world.flush()
        elif how == "rewind":
            self.world.rewind()
        else:
            self.world.remember()
        self.is_calm = self.is_calm and how == "remember"

    @rule(clock=st.sampled_from(["redis", "database"]), ticks=st.integers(-3, 6))
    def set_clock(self, clock: Clock, ticks: int) -> None:
        """A clock jumps."""
        self._move(clock, ticks)
        self.is_calm = False

    @rule(ticks=st.integers(1, 3))
    def let_time_pass(self, ticks: int) -> None:
        """Who is awake lives on meanwhile."""
        while ticks > 0:
            for worker in self._awake:
                self.world.beat(worker)
                self._renew(worker)
                self.heard_at[worker] = self.now
            self._move("redis", min(ticks, LEASE - 1))
            self._move("database", min(ticks, LEASE - 1))
            ticks -= LEASE - 1

    # Workers

    @precondition(lambda self: self._awake)
    @rule(
        which=SOME, call=st.sampled_from(["claim", "reap", "renew", "tell"]), lost=st.sampled_from([False, False, True])
    )
    def call_redis(self, which: int, call: str, lost: bool = False) -> None:
        """A worker calls one of Redis's scripts; the answer to a claim or of an end may be lost."""
        worker = self._pick(which)
        if call == "claim":
            self.world.claim(worker, lost=lost)
        elif call == "tell":
            self._tell(worker, lost=lost)
        elif call == "renew":
            self._renew(worker)
        else:
            self.world.reap(worker)

    @precondition(lambda self: self._awake)
    @rule(which=SOME, duty=st.sampled_from(DUTIES))
    def begin_duty(self, which: int, duty: Duty) -> None:
        """A worker begins something beside its runs."""
        self.world.begin(self._pick(which), duty)

    @precondition(lambda self: self._awake)
    @rule(which=SOME, strand=SOME, lost=st.sampled_from([False, False, False, True]))
    def step(self, which: int, strand: int, lost: bool) -> None:
        """A worker goes on with one thing."""
        worker = self._pick(which)
        self.world.step(worker, strand, lost=lost)
        if lost:
            self.unsure.add(worker)

    @precondition(lambda self: self._awake)
    @rule(which=SOME)
    def step_all(self, which: int) -> None:
        """A worker goes on with everything at once."""
        self.world.step_all(self._pick(which))

    @precondition(lambda self: self._awake)
    @rule(which=SOME, times=st.integers(1, 4))
    def work(self, which: int, times: int) -> None:
        """A worker does what it usually does: its runs go on by a step each time, all else to its end."""
        for _ in range(times):
            self._work(self._pick(which))

    # What must hold

    @invariant()
    def judge_it(self) -> None:
        """At every moment."""
        picture = self.world.picture()
        heard = {worker for worker, at in self.heard_at.items() if worker in self.workers}
        heard = {worker for worker in heard if self.now - self.heard_at[worker] < DEAD_AFTER}
        sure = set(self.workers) - self.unsure - self.drained if self.is_calm else set()
        found = self.judge.look(picture, heard=heard, sure=sure)
        assert found is None, found
        self.promised |= picture.runs.keys()

    def teardown(self) -> None:
        """All faults end; then everything has to come to its end, too."""
        try:
            if sys.exc_info()[0] is None:
                self.come_to_the_end()
        finally:
            self.world.close()

    def come_to_the_end(self) -> None:
        if self.is_calm:
            self.promised = set(range(1, self.asked + 1))
        self.paused.clear()
        if not set(self.workers) - self.drained:
            self._hire()
        for _ in range(ROUNDS):
            self.let_time_pass(2)
            for worker in self.workers:
                self._work(worker)
            self.judge_it()
            picture = self.world.picture()
            if self.promised <= picture.runs.keys() and not self.judge.unended() and not picture.left:
                break
        found = self.judge.conclude(self.promised)
        assert found is None, found
        assert not (problems := self.world.history(self.promised)), problems

    def _work(self, worker: int) -> None:
        for duty in DUTIES:
            self.world.begin(worker, duty)
        for _ in range(STEPS_OF_A_DUTY):
            self.world.step_duties(worker)
        self.world.reap(worker)
        self.world.claim(worker)
        self.world.step_all(worker)
        self._tell(worker)

    def _hire(self) -> None:
        self.world.hire()
        self.hired += 1
        self.workers.append(self.hired)
        self.heard_at[self.hired] = self.now

    def _move(self, clock: Clock, ticks: int) -> None:
        self.world.move_clock(clock, ticks)
        if clock == "database":
            self.now += ticks

    def _tell(self, worker: int, *, lost: bool = False) -> None:
        before = self.world.owners()
        self.world.tell(worker, lost=lost)
        after = self.world.owners()
        kept = {run: owner for run, owner in before.items() if owner != worker or run in self.world.performed(worker)}
        torn = {run: owner for run, owner in kept.items() if after.get(run) != owner}
        assert not torn, f"worker {worker} has ended claims that go on: {torn}"

    def _renew(self, worker: int) -> None:
        before = self.world.owners()
        self.world.renew(worker)
        after = self.world.owners()
        taken = {run: owner for run, owner in before.items() if owner != worker and after.get(run) == worker}
        assert not taken, f"worker {worker} has taken the claims of others: {taken}"

    @property
    def _awake(self) -> list[int]:
        return [worker for worker in self.workers if worker not in self.paused]

    def _pick(self, which: int) -> int:
        return self._awake[which % len(self._awake)]


def machine(make_world: Callable[[], World]) -> type[Rules]:
    """Returns the rules for a world, which is made anew for each example."""
    return type("Model", (Rules,), {"make_world": staticmethod(make_world)})


def profile(examples: int, steps: int, *, shrink: bool = True, **options: Any) -> settings:
    """Returns the settings of a search: the same examples in each run unless a seed is given."""
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=phases,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        **({"derandomize": True} | options),
    )
