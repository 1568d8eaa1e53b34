"""The long search, from a seed: the same seed draws the same examples. `make faults ARGS="model --seed N"`."""

import time
from collections.abc import Callable
from functools import partial

from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from tests.model.model_ledger import FLAWS
from tests.model.protocol import Protocol
from tests.model.real_stage import stage
from tests.model.real_world import RealWorld
from tests.model.rules import machine, profile
from tests.model.world import World

STEPS = 50
ENOUGH = 20_000
"""Examples after which a planted mistake counts as not found."""


def search(make_world: Callable[[], World], seed: int, examples: int, *, shrink: bool) -> tuple[int, str]:
    """Plays examples until one breaks a rule; hypothesis prints its steps then.

    Returns:
        How many were played, those that shrink what was found included, and what it was; empty: nothing.
    """
    played = 0

    def counted() -> World:
        nonlocal played
        played += 1
        return make_world()

    rules = seeded(seed)(machine(counted))
    try:
        run_state_machine_as_test(rules, settings=profile(examples, STEPS, shrink=shrink, derandomize=False))
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not be
        return played, f"FAILED: {error!r}"
    return played, ""


def search_protocol(seed: int, examples: int) -> bool:
    """Searches the protocol as data, then for each mistake that can be planted; prints a line for each of the two."""
    began = time.monotonic()
    played, found = search(Protocol, seed, examples, shrink=True)
    _say("model", f"{played} examples of {STEPS} steps: {found or 'no rule is broken'}", began)
    began, taken = time.monotonic(), dict[str, int]()
    for flaw in FLAWS:
        taken[flaw], caught = search(partial(Protocol, flaw), seed, ENOUGH, shrink=False)
        if not caught:
            _say("model", f"FAILED: {flaw!r} was planted, and {ENOUGH} examples did not find it", began)
            return False
    hardest = max(taken, key=lambda flaw: taken[flaw])
    words = f"{len(taken)} planted mistakes, each is found; the last one, {hardest!r}, after {taken[hardest]} examples"
    _say("model", words, began)
    return not found


def search_real_parts(engine: str, database_url: str, redis_url: str, seed: int, examples: int) -> bool:
    """Searches with the real ledger and the real scripts; prints a line."""
    began = time.monotonic()
    with stage(database_url, redis_url) as on:
        played, found = search(partial(RealWorld, on), seed, examples, shrink=True)
    _say(engine, f"the model's rules with the real parts, {played} examples: {found or 'no rule is broken'}", began)
    return not found


def _say(who: str, words: str, began: float) -> None:
    print(f"{who:<10}  {words}; {time.monotonic() - began:.0f} s", flush=True)
