"""Many callers, one transaction; whoever takes longer holds up nobody."""

import asyncio
import gc
from collections.abc import Sequence

import pytest

from worker.groups import Group


async def test_what_comes_meanwhile_is_done_together() -> None:
    groups: list[list[int]] = []

    async def double(items: Sequence[int]) -> Sequence[int]:
        groups.append(list(items))
        await asyncio.sleep(0)
        return [2 * item for item in items]

    group: Group[int, int] = Group(double, most=3)
    assert await asyncio.gather(*(group.submit(number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert groups == [[0, 1, 2], [3, 4]]
    assert await group.submit(7) == 14
    await group.drain()


async def test_one_that_takes_longer_holds_up_neither_the_others_nor_the_next_group() -> None:
    late: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def act(items: Sequence[str]) -> Sequence[str | asyncio.Future[str]]:
        return [late if item == "slow" else item for item in items]

    group: Group[str, str] = Group(act)
    slow, quick = group.submit("slow"), group.submit("quick")
    assert (await quick, await group.submit("next")) == ("quick", "next")
    draining = asyncio.create_task(group.drain())
    await asyncio.sleep(0)
    assert not slow.done()
    assert not draining.done()
    late.set_result("at last")
    assert await slow == "at last"
    await draining


async def test_an_error_of_one_is_its_own_and_an_error_of_the_group_is_everybodys() -> None:
    async def fail() -> str:
        raise ValueError("one")

    async def act(items: Sequence[str]) -> Sequence[str | asyncio.Future[str]]:
        if "all" in items:
            raise KeyError("all")
        return [asyncio.create_task(fail()) if item == "bad" else item for item in items]

    group: Group[str, str] = Group(act)
    results = await asyncio.gather(group.submit("bad"), group.submit("good"), return_exceptions=True)
    assert (type(results[0]), results[1]) == (ValueError, "good")
    results = await asyncio.gather(group.submit("all"), group.submit("good"), return_exceptions=True)
    assert [type(result) for result in results] == [KeyError, KeyError]
    assert await group.submit("good") == "good"


async def test_a_caller_that_leaves_does_not_take_its_item_back() -> None:
    done: list[int] = []
    gate = asyncio.Event()

    async def act(items: Sequence[int]) -> Sequence[int]:
        await gate.wait()
        done.extend(items)
        return list(items)

    group: Group[int, int] = Group(act)
    left, staying = group.submit(1), group.submit(2)

    async def wait_for_it() -> int:
        return await left

    leaving = asyncio.create_task(wait_for_it())
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    gate.set()
    assert await staying == 2
    assert done == [1, 2]
    assert await left == 1  # whoever asks again is told


async def test_an_error_that_nobody_waits_for_any_more_is_nobodys() -> None:
    gate, lost = asyncio.Event(), list[dict[str, object]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))

    async def act(items: Sequence[int]) -> Sequence[int]:
        await gate.wait()
        raise KeyError(*items)

    async def wait_for_it() -> int:
        return await group.submit(1)

    group: Group[int, int] = Group(act)
    leaving = asyncio.create_task(wait_for_it())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    gate.set()
    await group.drain()
    gc.collect()
    assert lost == []
