"""When what is done again and again comes round."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Pace:
    """What is done again and again."""

    interval_s: float | None
    """None: only when it is to be done now."""
    action: Callable[[], Awaitable[None]]
    sooner: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when it is to be done now."""

    @property
    def name(self) -> str:
        """What the log calls it."""
        return self.action.__name__.strip("_")

    async def come(self, phase_s: float) -> None:
        """Wait until it is to be done.

        Args:
            phase_s: the worker's own. What is done often is done at the same moments: waking up costs an idle worker
                more than what it then does.
        """
        timer = None
        if self.interval_s is not None:
            rest_s = self.interval_s - moment_of(phase_s) % self.interval_s
            timer = asyncio.get_running_loop().call_later(rest_s, self.sooner.set)
        try:
            await self.sooner.wait()
        finally:
            self.sooner.clear()
            if timer is not None:
                timer.cancel()


class Interval:
    """Comes round every few seconds, for what is done now and then along with something that is done more often.

    Args:
        interval_s: its length.
        step_s: how often the other thing is done; timers may be late or early by half of it.
    """

    def __init__(self, interval_s: float, step_s: float) -> None:
        self._least_s = interval_s - step_s / 2 if interval_s > step_s else 0.0
        self._began = -math.inf

    def is_over(self, moment: float) -> bool:
        """Whether it is time again."""
        return moment - self._began >= self._least_s

    def begin(self, moment: float) -> None:
        """Note that it has been done."""
        self._began = moment


def step_of(longest_s: float, *intervals_s: float) -> float:
    """Return how often to do what all of some intervals go along with: in steps of the shortest, ``longest_s`` at most.

    Args:
        longest_s: seconds.
        intervals_s: those that are to be kept to; the first one exactly.
    """
    first = intervals_s[0]
    shortest = min(longest_s, *intervals_s)
    return first / math.ceil(first / shortest)


def moment_of(phase_s: float) -> float:
    """Return the event loop's time, moved by the worker's own phase."""
    return asyncio.get_running_loop().time() + phase_s


def set_event() -> asyncio.Event:
    """Return an event that is set, for what is to be done at once and then at its pace."""
    event = asyncio.Event()
    event.set()
    return event
