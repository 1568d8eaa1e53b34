"""Redis as data: entries, claims, payloads, results. It may forget all of it at any time."""

from collections.abc import Collection
from copy import deepcopy
from dataclasses import dataclass, field

from holdfast.states import RunState
from tests.model.world import LEASE

Claim = tuple[int, int]
"""A worker, and which of its calls."""


@dataclass(slots=True)
class Keys:
    """What there is to be forgotten."""

    queue: dict[int, int] = field(default_factory=dict)
    """Run -> when it is due."""
    leases: dict[int, int] = field(default_factory=dict)
    owners: dict[int, Claim] = field(default_factory=dict)
    payloads: dict[int, int] = field(default_factory=dict)
    """Run -> its steps."""
    intake: list[int] = field(default_factory=list)
    results: dict[int, RunState] = field(default_factory=dict)
    aborts: set[int] = field(default_factory=set)
    has_sentinel: bool = False


class ModelRedis:
    """The scripts, each as one method.

    Args:
        asks_for_the_token: False plants a mistake: whoever calls may renew.
        ends_own_claims_only: False plants a mistake: whoever calls may end a claim.
        asks_for_the_number: False plants a mistake: a worker's end of any claim ends its present one.
    """

    def __init__(
        self, *, asks_for_the_token: bool = True, ends_own_claims_only: bool = True, asks_for_the_number: bool = True
    ) -> None:
        self.keys = Keys()
        self.now = 0
        self._replica = Keys()
        self._asks_for_the_token = asks_for_the_token
        self._ends_own_claims_only = ends_own_claims_only
        self._asks_for_the_number = asks_for_the_number

    def flush(self) -> None:
        self.keys = Keys()

    def remember(self) -> None:
        self._replica = deepcopy(self.keys)

    def rewind(self) -> None:
        self.keys = deepcopy(self._replica)
        self.keys.has_sentinel = False  # another server answers

    def send(self, run: int, steps: int) -> None:
        self.keys.payloads[run] = steps
        self.keys.queue[run] = self.now
        self.keys.intake.append(run)

    def abort(self, run: int) -> None:
        if run not in self.keys.results:
            self.keys.aborts.add(run)
            if run in self.keys.queue and not self.lease_holds(run):
                self.keys.queue[run] = self.now  # so that a worker ends it at once

    def claim(self, claim: Claim, most: int, *, but: Collection[int]) -> list[int]:
        due = sorted(run for run, at in self.keys.queue.items() if at <= self.now)
        free = [run for run in due if not self.lease_holds(run) and run not in but]
        for run in free[:most]:
            self._lease(claim, run)
        return free[:most]

    def renew(self, claim: Claim, run: int, steps: int | None) -> bool:
        """Returns whether the claim is the worker's; with the steps, one that nobody has is made again."""
        owner = self.keys.owners.get(run)
        if owner is None and run not in self.keys.results:
            if steps is not None:
                self.keys.payloads.setdefault(run, steps)
                self._lease(claim, run)
            return True
        if owner is None or (owner[0] != claim[0] and self._asks_for_the_token):
            return False
        self._lease(owner if owner[0] == claim[0] else claim, run)
        return True

    def reap(self, worker: int) -> None:
        for run in [run for run in self.keys.leases if not self.lease_holds(run) and not self.is_owned_by(worker, run)]:
            if run in self.keys.queue:
                self.keys.queue[run] = self.now
            self._release(run)

    def recover(self, worker: int, *, but: Collection[int]) -> None:
        """Gives a worker's claims back, but for those that it knows of."""
        for run in [run for run in self.keys.owners if self.is_owned_by(worker, run) and run not in but]:
            if run in self.keys.queue:
                self.keys.queue[run] = self.now
            self._release(run)

    def tell(self, claim: Claim, run: int, end: RunState | None, steps: int) -> None:
        """Ends a claim; None: the run goes back."""
        owner = self.keys.owners.get(run)
        is_its = owner == claim or (owner is None and run not in self.keys.results)
        is_its = is_its or (self.is_owned_by(claim[0], run) and not self._asks_for_the_number)
        if not is_its and self._ends_own_claims_only:
            return
        if end is None:
            self.keys.payloads.setdefault(run, steps)
            self.keys.queue[run] = self.now
            self._release(run)
        else:
            self.keys.results[run] = end
            self._forget(run)

    def tell_unclaimed(self, run: int, end: RunState) -> None:
        """Tells how a run ended that never started; one that is claimed is left to its worker."""
        if run not in self.keys.leases:
            self.keys.results[run] = end
            self._forget(run)

    def put(self, run: int, steps: int, *, anew: bool) -> None:
        """Puts a waiting run into the queue; anew: also where a dead worker's claim is left."""
        self.keys.payloads[run] = steps
        if run not in self.keys.queue or (anew and not self.lease_holds(run)):
            self._release(run)
            self.keys.queue[run] = self.now

    def lease_holds(self, run: int) -> bool:
        return self.keys.leases.get(run, self.now) > self.now

    def is_owned_by(self, worker: int, run: int) -> bool:
        return run in self.keys.owners and self.keys.owners[run][0] == worker

    def left(self) -> list[str]:
        """What is there of runs and claims, but for results."""
        return [f"{name} {run}" for name in ("queue", "leases", "payloads") for run in getattr(self.keys, name)]

    def _lease(self, claim: Claim, run: int) -> None:
        self.keys.queue[run] = self.keys.leases[run] = self.now + LEASE
        self.keys.owners[run] = claim

    def _release(self, run: int) -> None:
        self.keys.leases.pop(run, None)
        self.keys.owners.pop(run, None)

    def _forget(self, run: int) -> None:
        self._release(run)
        self.keys.queue.pop(run, None)
        self.keys.payloads.pop(run, None)
        self.keys.aborts.discard(run)
