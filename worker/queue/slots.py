"""Slots: how many runs a worker performs at the same time, and which entry gets one that is free.

While runs are so short that a slot will be free at once, entries are started ahead of their slots. Otherwise a worker
whose runs last less than a round trip to Redis, or to its database for their admission, stands idle for each of them.
An entry that was started ahead goes back to its place in the queue as soon as it would have to wait, so that no other
worker misses it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping

SHORT_S = 0.1
"""A run that keeps its slot longer ends the starting ahead; where no slot gets free for so long, nobody waits on."""
FEW_RUNS = 10
"""After so many short runs in a row, or as many as there are slots if that is more, entries are started ahead."""

MOST_AHEAD = 2
"""Up to so many times as many entries as there are slots have or await one when as many again are started ahead. One
group of them is admitted, which takes as long as the database needs to make it durable, and the next ones gather."""


class Slot:
    """One entry's place among the runs of its worker; functions find it in ``ctx["slot"]``."""

    __slots__ = ("_slots", "is_ahead", "is_held", "queue", "since")

    def __init__(self, slots: "Slots", queue: str) -> None:
        self._slots = slots
        self.queue = queue
        self.is_held = False
        self.is_ahead = False
        """Whether the entry was started without a slot and has none yet."""
        self.since = 0.0
        """When the slot was taken, or the entry was started ahead of it; monotonic, in seconds."""

    async def take(self) -> bool:
        """Have the slot, at once where the entry was not started ahead of it.

        Returns:
            Whether it is there; False: the entry has to go back to its place in the queue, as if it had not begun.
        """
        return self.is_held or await self._slots.wait_for(self)

    def release(self) -> None:
        """Let another run start although the end of this one is still to be written down."""
        if self._slots.may_be_released_early:
            self._slots.end(self)


class Slots:
    """The slots of one worker.

    Args:
        most: how many there are.
        queue_slots: the most that runs of a queue may take, for those queues that may not take all.
        may_be_released_early: whether a run may give up its slot before its end is written down.
        longest_wait_s: who was started ahead for longer gets no slot: where the whole process stood still, another
            worker may have the entry by now.
    """

    def __init__(
        self, most: int, queue_slots: Mapping[str, int], *, may_be_released_early: bool, longest_wait_s: float
    ) -> None:
        self.may_be_released_early = may_be_released_early
        self.freed = asyncio.Event()
        """Set when there may be something to claim for: a slot got free, or all that was started ahead has one."""
        self.on_limited_freed: Callable[[], None] = lambda: None
        """Called when a queue that may not take all slots has one more."""
        self.held = 0
        self.ahead = 0
        """How many entries were started ahead and have no slot yet."""
        self._most = most
        self._longest_wait_s = longest_wait_s
        self._queue_slots = queue_slots
        self._held_of: Counter[str] = Counter()
        self._waiting: dict[Slot, asyncio.Future[bool]] = {}
        self._short_runs = 0
        self._got_free_at = 0.0
        self._patience: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    @property
    def free(self) -> int:
        """How many slots nobody has or was started ahead for."""
        return self._most - self.held - self.ahead

    def free_of(self, queue: str, free: int) -> int:
        """Return how many of the worker's free slots a queue may take."""
        most = self._queue_slots.get(queue)
        return free if most is None else min(free, most - self._held_of[queue])

    @property
    def is_ahead_worthwhile(self) -> bool:
        """Whether to start entries ahead: few enough have or await a slot, and runs were short."""
        short = self._short_runs >= max(self._most, FEW_RUNS) and not self._queue_slots
        return short and self.held + self.ahead <= MOST_AHEAD * self._most

    def begin(self, queue: str, *, ahead: bool) -> Slot:
        """Return the slot of an entry that is started now: taken, or to be taken when the entry comes to it."""
        slot = Slot(self, queue)
        if ahead:
            slot.is_ahead = True
            slot.since = time.monotonic()
            self.ahead += 1
        else:
            self._take(slot)
        return slot

    async def wait_for(self, slot: Slot) -> bool:
        """As ``Slot.take``, for an entry that was started ahead."""
        if self.held < self._most and not self._waiting:
            return self._give(slot)
        if not self._waiting:
            self._got_free_at = time.monotonic()
            self._patience = self._loop.call_later(SHORT_S, self._look)
        future = self._waiting[slot] = self._loop.create_future()
        try:
            has_slot: bool = await future
        finally:
            self._waiting.pop(slot, None)
        return has_slot

    def end(self, slot: Slot) -> None:
        """Free an entry's slot, or forget that it was started ahead; a second time nothing happens."""
        if slot.is_held:
            self._free(slot)
        elif slot.is_ahead:
            self._leave_ahead(slot)

    def refuse(self) -> None:
        """Let nobody wait any more, and count short runs anew: a queue is paused, or the worker stops."""
        self._short_runs = 0
        # They are forgotten at once: who begins to wait before they hear of it is the first one again, with a timer.
        refused, self._waiting = self._waiting, {}
        for future in refused.values():
            if not future.done():
                future.set_result(False)

    def _give(self, slot: Slot) -> bool:
        """Give a slot to an entry that was started ahead, unless that is too long ago; returns whether it has it."""
        if time.monotonic() - slot.since > self._longest_wait_s:
            return False
        self._leave_ahead(slot)
        self._take(slot)
        return True

    def _take(self, slot: Slot) -> None:
        slot.is_held = True
        slot.since = time.monotonic()
        self.held += 1
        self._held_of[slot.queue] += 1

    def _leave_ahead(self, slot: Slot) -> None:
        slot.is_ahead = False
        self.ahead -= 1

    def _free(self, slot: Slot) -> None:
        now = time.monotonic()
        slot.is_held = False
        self.held -= 1
        self._held_of[slot.queue] -= 1
        self._short_runs = self._short_runs + 1 if now - slot.since < SHORT_S else 0
        self._got_free_at = now
        while self._waiting and self.held < self._most:
            first = next(iter(self._waiting))
            future = self._waiting.pop(first)
            if not future.done():
                future.set_result(self._give(first))
        self.freed.set()
        if slot.queue in self._queue_slots:
            self.on_limited_freed()

    def _look(self) -> None:
        if not self._waiting:
            return
        left_s = self._got_free_at + SHORT_S - time.monotonic()
        if left_s > 0:
            self._patience = self._loop.call_later(left_s, self._look)
        else:
            self.refuse()
