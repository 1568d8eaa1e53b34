"""Where the real functions of a worker are stopped, until the rules let them go on."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any

from jobs.context import RunContext


class Crashed(BaseException):
    """The worker is dead: what it has begun ends here, whatever it would have done about its end."""


class Strand:
    """One thing that a worker has begun: a run, or a duty.

    Args:
        label: the run's number, or the duty's name.
        moved: is set when it has come to a gate.
        note_start: is called when a run's function has begun.
    """

    def __init__(self, label: int | str, moved: asyncio.Event, note_start: Callable[[RunContext], Any]) -> None:
        self.label = label
        self.gate = ""
        self.loses_answer = False
        """Whether the answer to its next commit is lost."""
        self.note_start = note_start
        self._moved = moved
        self._held: asyncio.Future[None] | None = None
        self._is_dead = False

    @property
    def is_stopped(self) -> bool:
        """Whether it stands at a gate."""
        return self._held is not None and not self._held.done()

    async def stop_at(self, gate: str) -> None:
        """Returns when it may go on."""
        if self._is_dead:
            raise Crashed
        self.gate, self._held = gate, asyncio.get_running_loop().create_future()
        self._moved.set()
        await self._held

    def go_on(self) -> None:
        """Opens the gate."""
        if self._held is not None and not self._held.done():
            self._held.set_result(None)

    def crash(self) -> None:
        """Ends it where it stands."""
        self._is_dead = True
        if self._held is not None and not self._held.done():
            self._held.set_exception(Crashed())


current: ContextVar[Strand | None] = ContextVar("current", default=None)
"""The strand to which the running task belongs."""


async def stop_at(gate: str) -> None:
    """Stops the strand here."""
    if (strand := current.get()) is not None:
        await strand.stop_at(gate)


async def note_start(context: RunContext) -> None:
    """Notes that a run's function has begun."""
    if (strand := current.get()) is not None:
        await strand.note_start(context)


def gated(gate: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function with a gate before it."""

    @wraps(function)
    async def stopped(*args: Any, **kwargs: Any) -> Any:
        await stop_at(gate)
        return await function(*args, **kwargs)

    return stopped
