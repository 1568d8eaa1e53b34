"""The ledger as data: runs, attempts, signs of life, effects. Each method is one transaction."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from db.models import NEXT_STATES
from holdfast.states import RunState
from tests.model.world import DEAD_AFTER, Ended, Seen

Flaw = Literal[
    "no fence in a batch",
    "no fence at the end",
    "no token in a renewal",
    "no token at the end of a claim",
    "no number at the end of a claim",
    "told before the commit",
    "over runs start again",
    "living workers count as dead",
    "put back without a second look",
    "started before the admission",
    "effect and cursor apart",
    "marked before it is put",
    "what waits is not compared",
    "a crash is charged",
    "keys are not looked at",
]
"""Mistakes that can be planted, here and in the rest of the model."""
FLAWS: tuple[Flaw, ...] = get_args(Flaw)
SUSPECT_AFTER = 2


@dataclass(slots=True)
class Row:
    """A run."""

    steps: int
    key: str | None = None
    state: RunState = RunState.WAITING
    fence: int = 0
    worker: int = 0
    started_at: int = 0
    crashes: int = 0
    cursor: int = 0
    has_key: bool = False
    was_put_back: bool = False
    dispatched: bool = False
    cancel_requested: bool = False


class ModelLedger:
    """The transactions.

    Args:
        flaw: a planted mistake.
    """

    def __init__(self, flaw: Flaw | None) -> None:
        self.rows: dict[int, Row] = {}
        self.attempts: list[Ended] = []
        self.effects: list[tuple[int, int]] = []
        self.beats: dict[int, int] = {}
        """Worker -> when it was heard of. A dead one's last sign ages as any other: here it does so at once."""
        self.wrong: list[str] = []
        self.now = 0
        self._flaw = flaw

    def insert(self, run: int, steps: int, key: str | None, *, dispatched: bool = False) -> None:
        """Enters a run, if it is not there."""
        self.rows.setdefault(run, Row(steps, key, dispatched=dispatched))

    def admit(self, worker: int, run: int, steps: int, *, active: Collection[int]) -> int | RunState | None:
        """Returns the new fence, the end that the run has already (I3), or None: it goes back."""
        self.insert(run, steps, None, dispatched=True)
        row = self.rows[run]
        if row.state.is_over and self._flaw != "over runs start again":
            return row.state
        if row.state is RunState.RUNNING:
            if not self._is_free(worker, run, active):
                return None
            self._take_from(run, by=worker)
        self.end_unwanted(run)
        if row.state.is_over and self._flaw != "over runs start again":
            return row.state
        others = set(active) - {run}
        if others and (row.crashes >= SUSPECT_AFTER or self.has_suspect(others)):
            return None  # a suspect runs alone
        self._enter(run, RunState.RUNNING)
        row.fence, row.worker, row.started_at, row.was_put_back = row.fence + 1, worker, self.now, False
        return row.fence

    def end_unwanted(self, run: int) -> bool:
        """Ends a waiting run that was cancelled, or for which another one stands; returns whether it did."""
        row = self.rows[run]
        if row.state is not RunState.WAITING or not (row.cancel_requested or not self._takes_key(run)):
            return False
        self._enter(run, RunState.CANCELLED)
        return True

    def take_effect(self, run: int, step: int) -> None:
        self.effects.append((run, step))

    def move_cursor(self, run: int, step: int) -> None:
        row = self.rows[run]
        row.cursor, row.crashes = max(row.cursor, step), 0

    def finish(self, run: int, fence: int, outcome: str) -> RunState | None:
        """Ends an attempt; returns the run's end, None when it has none."""
        row = self.rows[run]
        if not self.holds(run, fence) and self._flaw != "no fence at the end":
            return row.state if row.state.is_over else None
        if outcome == "lost":
            return None
        self.attempts.append(Ended(run, row.fence, row.worker, outcome))
        state = RunState.WAITING if outcome == "interrupted" else RunState(outcome)
        self._enter(run, state)
        return state if state.is_over else None

    def cancel(self, run: int) -> bool:
        """Somebody does not want a run any more; returns whether it has ended by that."""
        if (row := self.rows.get(run)) is None or row.state.is_over:
            return False
        if row.state is RunState.RUNNING:
            row.cancel_requested = True
            return False
        self._enter(run, RunState.CANCELLED)
        return True

    def refuse(self, run: int, steps: int) -> RunState | None:
        """Ends a run that was cancelled before its admission; None: somebody performs it, and is told."""
        self.insert(run, steps, None, dispatched=True)
        self.cancel(run)
        state = self.rows[run].state
        return state if state.is_over else None

    def orphans(self, worker: int, active: Collection[int]) -> dict[int, int]:
        """Returns the running runs that nobody performs, with their fences, as this worker sees it."""
        running = {run: row.fence for run, row in self.rows.items() if row.state is RunState.RUNNING}
        return {run: fence for run, fence in running.items() if self._is_orphan(worker, run, active)}

    def put_back(self, worker: int, run: int, fence: int, *, active: Collection[int]) -> None:
        """Lets an orphan wait, if it still is one."""
        row = self.rows[run]
        still = row.fence == fence and self._is_orphan(worker, run, active)
        if row.state is RunState.RUNNING and (still or self._flaw == "put back without a second look"):
            self._take_from(run, by=worker)
            row.was_put_back, row.dispatched = True, False

    def mark_dispatched(self, runs: Collection[int]) -> None:
        for run in runs:
            if self.rows[run].state is RunState.WAITING:
                self.rows[run].dispatched = True

    def waiting(self) -> list[int]:
        return [run for run, row in self.rows.items() if row.state is RunState.WAITING]

    def holds(self, run: int, fence: int) -> bool:
        """Whether the admission at this fence still stands."""
        return self.rows[run].fence == fence and self.rows[run].state is RunState.RUNNING

    def has_suspect(self, runs: Collection[int]) -> bool:
        return any(self.rows[run].crashes >= SUSPECT_AFTER for run in runs)

    def seen(self, run: int) -> Seen:
        row = self.rows[run]
        effects = sorted(step for of, step in self.effects if of == run)
        return Seen(row.state, row.fence, row.steps, row.key, tuple(effects))

    def _is_free(self, worker: int, run: int, active: Collection[int]) -> bool:
        """Whether a worker that was given a running run may take it."""
        row = self.rows[run]
        return run not in active if row.worker == worker else self._is_silent(row.worker)

    def _is_orphan(self, worker: int, run: int, active: Collection[int]) -> bool:
        row = self.rows[run]
        is_late = row.worker != worker or row.started_at < self.now - DEAD_AFTER  # its own may just have been admitted
        return is_late and self._is_free(worker, run, active)

    def _is_silent(self, worker: int) -> bool:
        if self._flaw == "living workers count as dead":
            return True
        return worker not in self.beats or self.beats[worker] < self.now - DEAD_AFTER

    def _take_from(self, run: int, *, by: int) -> None:
        """Lets a running run wait: its worker is dead, or has never heard of its admission."""
        row = self.rows[run]
        if row.worker == by:
            self.attempts.append(Ended(run, row.fence, by, "interrupted"))
            self._enter(run, RunState.WAITING)
            return
        outcome = "retry" if self._flaw == "a crash is charged" else "crashed"
        self.attempts.append(Ended(run, row.fence, row.worker, outcome))
        self._enter(run, RunState.QUARANTINED if row.crashes >= SUSPECT_AFTER else RunState.WAITING)
        row.crashes += 1

    def _takes_key(self, run: int) -> bool:
        row = self.rows[run]
        if row.key is None or row.has_key or self._flaw == "keys are not looked at":
            return True
        row.has_key = not any(other.has_key and other.key == row.key for other in self.rows.values())
        return row.has_key

    def _enter(self, run: int, state: RunState) -> None:
        row = self.rows[run]
        if state not in NEXT_STATES[row.state]:
            self.wrong.append(f"run {run}: {row.state} was followed by {state}")
        row.state = state
        row.has_key = row.has_key and not state.is_over
