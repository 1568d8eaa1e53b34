"""Slots by themselves: who waits for one is answered, whenever it begins to wait."""

import asyncio
import time

import pytest

from worker.queue import slots
from worker.queue.slots import FEW_RUNS, Slot, Slots

QUEUE = "queue"
QUICK_S = 0.01


async def test_who_begins_to_wait_just_as_others_are_refused_is_refused_in_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots, "SHORT_S", QUICK_S)
    full = Slots(1, {}, may_be_released_early=True, longest_wait_s=60.0)
    full.begin(QUEUE, ahead=False)
    first, second = full.begin(QUEUE, ahead=True), full.begin(QUEUE, ahead=True)

    async def take_a_step_later(slot: Slot) -> bool:
        await asyncio.sleep(0)
        return await slot.take()

    waiting = asyncio.create_task(first.take())
    await asyncio.sleep(0)
    late = asyncio.create_task(take_a_step_later(second))
    time.sleep(2 * QUICK_S)  # noqa: ASYNC251 - the first one is refused between the two steps of the second
    async with asyncio.timeout(100 * QUICK_S):
        assert not any(await asyncio.gather(waiting, late))


@pytest.mark.parametrize("most", [1, 20])
async def test_only_a_row_of_short_runs_makes_it_worthwhile_to_start_ahead(most: int) -> None:
    few = Slots(most, {}, may_be_released_early=True, longest_wait_s=60.0)
    seen = []
    for _ in range(max(most, FEW_RUNS)):
        seen.append(few.is_ahead_worthwhile)
        few.end(few.begin(QUEUE, ahead=False))
    assert not any(seen)  # long and short runs in turn would each time send back the one behind the long one
    assert few.is_ahead_worthwhile
