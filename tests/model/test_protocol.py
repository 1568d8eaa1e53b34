"""The protocol as data, under arbitrary interleavings of crashes, pauses, flushes, failovers and clock steps."""

from functools import partial

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.model_ledger import FLAWS, Flaw
from tests.model.protocol import Protocol
from tests.model.rules import machine, profile
from tests.model.scenes import SCENES, play

EXAMPLES = 200
STEPS = 40


def test_the_rules_hold() -> None:
    run_state_machine_as_test(machine(Protocol), settings=profile(EXAMPLES, STEPS))


@pytest.mark.parametrize("flaw", FLAWS)
def test_each_flaw_is_found(flaw: Flaw) -> None:
    """The search finds them as well (`make faults`); the scenes are quicker."""
    play(SCENES[flaw], Protocol)
    with pytest.raises(AssertionError):
        play(SCENES[flaw], partial(Protocol, flaw))
