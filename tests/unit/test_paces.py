"""When what is done again and again comes round."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from worker.paces import Interval, Pace, set_event

EARLY_OR_LATE = st.floats(-0.4, 0.4)


async def act() -> None:
    pass


async def comes(pace: Pace, *, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await pace.come(phase_s=0.123)
    except TimeoutError:
        return False
    return True


async def test_a_pace_comes_round_by_itself_and_sooner_when_it_is_asked_to() -> None:
    assert await comes(Pace(0.01, act), within_s=60)
    seldom = Pace(3600.0, act, set_event())
    assert await comes(seldom, within_s=60)
    assert not seldom.sooner.is_set()
    asyncio.get_running_loop().call_later(0.01, seldom.sooner.set)
    assert await comes(seldom, within_s=60)


async def test_without_an_interval_it_comes_only_when_it_is_asked_to() -> None:
    pace = Pace(None, act)
    assert not await comes(pace, within_s=0.05)
    pace.sooner.set()
    assert await comes(pace, within_s=60)
    assert pace.name == "act"


async def test_a_wait_that_is_cancelled_leaves_no_timer_behind() -> None:
    pace = Pace(0.05, act)
    task = asyncio.create_task(pace.come(phase_s=0.0))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0.1)
    assert not pace.sooner.is_set()


@given(st.integers(1, 20), st.lists(EARLY_OR_LATE, min_size=50, max_size=50))
def test_an_interval_begins_once_in_so_many_steps_however_the_timers_go(steps: int, off: list[float]) -> None:
    step_s = 0.5
    interval = Interval(steps * step_s, step_s)
    begun = [interval.begins((number + late) * step_s) for number, late in enumerate(off, start=1000 * steps)]
    assert [number for number, begins in enumerate(begun) if begins] == list(range(0, len(off), steps))


@given(st.floats(0.01, 0.5))
def test_what_is_looked_at_no_more_often_than_it_is_due_is_due_each_time(interval_s: float) -> None:
    interval = Interval(interval_s, step_s=0.5)
    assert all(interval.begins(number * 0.5) for number in range(100))
