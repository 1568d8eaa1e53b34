"""When what is done again and again comes round."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.paces import Interval, Pace, set_event, step_of

STEP_S = 0.5
EARLY_OR_LATE = st.floats(-0.24, 0.24)


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
def test_an_interval_is_over_once_in_so_many_steps_however_the_timers_go(steps: int, off: list[float]) -> None:
    interval = Interval(steps * STEP_S, STEP_S)
    begun = [number for number, late in enumerate(off) if takes(interval, (number + late) * STEP_S)]
    assert begun == list(range(0, len(off), steps))


@given(st.floats(0.01, STEP_S), st.lists(st.floats(0.0, 5.0), min_size=10, max_size=50))
def test_what_goes_along_with_something_rarer_is_done_each_time(interval_s: float, gaps: list[float]) -> None:
    interval = Interval(interval_s, STEP_S)
    assert all(takes(interval, moment) for moment in itertools.accumulate(gaps))


def test_what_was_not_done_is_due_at_the_next_step() -> None:
    interval = Interval(10 * STEP_S, STEP_S)
    assert interval.is_over(0.0)
    assert interval.is_over(STEP_S)
    interval.begin(STEP_S)
    assert not interval.is_over(2 * STEP_S)


@pytest.mark.parametrize(
    ("intervals", "step_s"),
    [((0.5, 2.0), 0.5), ((60.0, 2.0), 1.0), ((1.5, 2.0), 0.75), ((0.5, 0.2), 0.5 / 3), ((0.1, 2.0), 0.1)],
)
def test_the_step_keeps_to_the_first_interval(intervals: tuple[float, ...], step_s: float) -> None:
    assert step_of(1.0, *intervals) == pytest.approx(step_s)


def takes(interval: Interval, moment: float) -> bool:
    if not interval.is_over(moment):
        return False
    interval.begin(moment)
    return True
