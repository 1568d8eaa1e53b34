"""What the model's rules act on: ledger, Redis and workers, as plain data (`protocol`) or as they are (`real_world`).

Each method is one step that nobody sees half done: a transaction, or a script in Redis. Between two of them anything
may happen, and the rules see to it that it does.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from holdfast.states import RunState

Clock = Literal["redis", "database"]
Duty = Literal["dispatch", "sweep", "put back", "look"]
DUTIES: tuple[Duty, ...] = ("dispatch", "sweep", "put back", "look")
"""What workers do beside their runs: put due runs into Redis; compare all that waits with it; put the runs of dead
workers back; look whether Redis was emptied, and for what producers have announced there."""

LEASE = 3
"""Ticks of Redis's clock for which a claim holds."""
DEAD_AFTER = 4
"""Ticks of the database's clock after which a silent worker counts as dead."""
SLOTS = 3
"""Runs that a worker claims at the same time."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as the ledger and the effects' table show it."""

    state: RunState
    fence: int
    steps: int
    """The effects that it is to have: one for each step, in their order."""
    key: str | None
    effects: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt that is over."""

    run: int
    fence: int
    worker: int
    outcome: str


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything at one moment."""

    runs: Mapping[int, Seen]
    attempts: Sequence[Ended]
    told: Mapping[int, bool]
    """The results in Redis: whether they are successes."""
    left: Sequence[str]
    """What Redis has of runs and claims, but for results."""
    wrong: Sequence[str] = field(default=())
    """What was seen to go wrong on the way."""


class World(Protocol):
    """Runs and workers are numbered in the order in which they are made, from 1 on."""

    def enqueue(self, steps: int, key: str | None) -> None:
        """Commits a run in a producer's transaction."""

    def send(self, steps: int) -> None:
        """Puts a run straight into Redis, and announces it."""

    def cancel(self, run: int) -> None:
        """An operator does not want a run any more; nothing happens where there is none."""

    def abort(self, run: int) -> None:
        """A producer tells Redis that it does not want a run any more."""

    def hire(self) -> None:
        """A worker starts."""

    def crash(self, worker: int) -> None:
        """kill -9."""

    def drain(self, worker: int) -> None:
        """SIGTERM: it claims nothing more, and its runs are to stop at their next batch."""

    def flush(self) -> None:
        """Redis is emptied."""

    def remember(self) -> None:
        """A replica has everything that Redis has, and gets no more from now on."""

    def rewind(self) -> None:
        """The replica takes over."""

    def move_clock(self, clock: Clock, ticks: int) -> None:
        """A clock goes on, or is set."""

    def beat(self, worker: int) -> None:
        """A worker says in the ledger that it lives."""

    def renew(self, worker: int) -> None:
        """A worker renews its leases."""

    def claim(self, worker: int, *, lost: bool = False) -> None:
        """A worker takes what is due, as far as it has slots.

        Args:
            worker: who.
            lost: the answer is lost: Redis has done it, and the worker does not know what.
        """

    def reap(self, worker: int) -> None:
        """A worker returns claims that have run out to their place, and those of its own of which it was not told."""

    def begin(self, worker: int, duty: Duty) -> None:
        """A worker begins a duty, unless it is at it."""

    def step(self, worker: int, which: int, *, lost: bool = False) -> None:
        """One of the things that a worker has begun goes on by a step.

        Args:
            worker: who.
            which: of them; any number.
            lost: it is a transaction of the ledger whose commit is not answered, as when the connection breaks.
        """

    def step_all(self, worker: int) -> None:
        """All that a worker has begun goes on by a step, at the same moment."""

    def step_duties(self, worker: int) -> None:
        """All of a worker's duties go on by a step."""

    def tell(self, worker: int, *, lost: bool = False) -> None:
        """A worker lets Redis hear how its claims have ended; where the answer is lost it does so again later."""

    def owners(self) -> dict[int, int]:
        """Returns the claims in Redis: run -> worker."""

    def performed(self, worker: int) -> set[int]:
        """Returns the runs that a worker performs: they have not ended."""

    def picture(self) -> Picture:
        """Returns what is there now."""

    def history(self, promised: Collection[int]) -> list[str]:
        """Returns what the history checker finds when all is over, where there is more of it than the picture."""

    def close(self) -> None:
        """Ends it."""
