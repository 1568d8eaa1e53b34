"""Claiming ahead: entries for which no slot is free yet, while runs are so short that one will be at once.

Otherwise a worker whose runs last less than a round trip to Redis stands idle for every claim. What is claimed ahead is
leased and not started. It goes back to its place as soon as it would have to wait, so that no other worker misses it.
"""

import asyncio
from collections.abc import Callable

from worker.queue.claims import Claimed

SHORT_S = 0.05
"""A run that lasts longer ends the claiming ahead; so long an entry waits for its slot while the loop turns."""


class Ahead:
    """What one worker has claimed ahead.

    Args:
        enough: after so many short runs, one after the other, entries are claimed ahead.
        give_back: puts entries back to their place in the queue.
        valid_s: what is held for longer is started no more: where the whole process stood still, others have it.
    """

    def __init__(self, enough: int, give_back: Callable[[list[Claimed]], None], *, valid_s: float) -> None:
        self._enough = enough
        self._give_back = give_back
        self._valid_s = valid_s
        self._held: list[Claimed] = []
        self._since = 0.0
        self._short_runs = 0

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, claimed: Claimed) -> bool:
        return claimed in self._held

    @property
    def is_worthwhile(self) -> bool:
        """Whether to claim: nothing is held, and runs have been short for a while."""
        return not self._held and self._short_runs >= self._enough

    def note_run(self, seconds: float) -> None:
        """Hear how long a run has kept its slot."""
        self._short_runs = self._short_runs + 1 if seconds < SHORT_S else 0

    def hold(self, claims: list[Claimed]) -> None:
        """Keep entries until there are slots."""
        self._held += claims
        self._since = asyncio.get_running_loop().time()

    def take(self, count: int) -> list[Claimed]:
        """Return the first of what is held, to be started; what is not valid any more goes back."""
        if self._held and asyncio.get_running_loop().time() - self._since > self._valid_s:
            self.end()
        taken, self._held = self._held[:count], self._held[count:]
        return taken

    def drop(self, claimed: Claimed) -> bool:
        """Forget an entry that another worker has now; returns whether it was held."""
        was_held = claimed in self._held
        if was_held:
            self._held.remove(claimed)
        return was_held

    def left_s(self) -> float:
        """Return for how many seconds more what is held may wait."""
        return self._since + SHORT_S - asyncio.get_running_loop().time()

    def end(self) -> None:
        """Give everything back, and begin to count short runs anew."""
        self._short_runs = 0
        if self._held:
            held, self._held = self._held, []
            self._give_back(held)
