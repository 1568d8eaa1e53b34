"""For each mistake that can be planted a scene in which it does harm; without the mistake nothing does."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.model.model_ledger import Flaw
from tests.model.rules import Rules, machine
from tests.model.world import Duty, World

Play = Callable[[Rules], Any]


def enqueue(steps: int = 2, door: str = "outbox") -> Play:
    return lambda rules: rules.enqueue(steps, door)


def work(which: int, times: int = 1) -> Play:
    """The first time takes a run as far as its first batch, each further one through a batch, then to its end."""
    return lambda rules: rules.work(which, times)


def overtake(which: int, times: int) -> Play:
    """The first of the others works so often meanwhile."""
    return lambda rules: rules.be_overtaken(which, 0, times, None)


def begin(which: int, duty: Duty) -> Play:
    return lambda rules: rules.begin_duty(which, duty)


def step(which: int) -> Play:
    return lambda rules: rules.step_all(which)


def call(which: int, name: str, *, lost: bool = False) -> Play:
    return lambda rules: rules.call_redis(which, name, lost)


def miss_its_commit(which: int) -> Play:
    return lambda rules: rules.step(which, 0, lost=True)


def crash(which: int, seen_by: int | None = None) -> Play:
    return lambda rules: rules.crash(which, seen_by)


def drain(which: int) -> Play:
    return lambda rules: rules.drain(which)


def lose(how: str) -> Play:
    return lambda rules: rules.lose_redis(how)


def wait(ticks: int) -> Play:
    return lambda rules: rules.let_time_pass(ticks)


SCENES: Mapping[Flaw, Sequence[Play]] = {
    "no fence in a batch": (enqueue(), work(0), overtake(0, 4)),
    "no fence at the end": (enqueue(), work(0), drain(0), step(0), overtake(0, 1)),
    "no token in a renewal": (enqueue(), work(0), overtake(0, 1), call(0, "renew")),
    "no token at the end of a claim": (enqueue(), work(0), overtake(0, 1), step(0), call(0, "tell")),
    "no number at the end of a claim": (
        enqueue(door="client"),
        call(0, "claim"),
        miss_its_commit(0),
        call(0, "tell", lost=True),
        wait(3),
        call(0, "claim"),
        call(0, "tell"),
    ),
    "told before the commit": (enqueue(), work(0, 3), call(0, "tell")),
    "over runs start again": (enqueue(1), work(0), lose("remember"), work(0, 3), lose("rewind"), wait(3), work(1, 2)),
    "living workers count as dead": (enqueue(), work(0), begin(1, "put back"), step(1)),
    "put back without a second look": (
        enqueue(),
        work(2),
        wait(3),
        crash(2),
        wait(3),
        begin(0, "put back"),
        overtake(0, 2),
    ),
    "started before the admission": (enqueue(), work(0, 2)),
    "effect and cursor apart": (enqueue(), work(0, 2), crash(0), wait(3), wait(3), work(0, 3)),
    "marked before it is put": (enqueue(), begin(0, "dispatch"), crash(0)),
    "what waits is not compared": (enqueue(), begin(0, "dispatch"), step(0), step(0), lose("flush")),
    "a crash is charged": (enqueue(), work(0), crash(0)),
    "keys are not looked at": (enqueue(door="with a key"), enqueue(door="with a key"), work(0)),
}


def play(plays: Sequence[Play], make_world: Callable[[], World]) -> None:
    """Plays a scene; what must hold is looked at after each play, and at the end.

    Raises:
        AssertionError: it does not hold.
    """
    rules = machine(make_world)()
    try:
        rules.begin()
        for each in plays:
            each(rules)
            rules.judge_it()
        rules.come_to_the_end()
    finally:
        rules.world.close()
