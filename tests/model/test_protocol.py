"""The protocol as data, under arbitrary interleavings of crashes, pauses, flushes, failovers and clock steps."""

from functools import partial

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.model.model_ledger import FLAWS, Flaw
from tests.model.protocol import Protocol
from tests.model.rules import machine, profile

EXAMPLES = 150
STEPS = 40
ENOUGH = 10_000
"""The search for a flaw ends when it is found."""


def test_the_rules_hold() -> None:
    run_state_machine_as_test(machine(Protocol), settings=profile(EXAMPLES, STEPS))


@pytest.mark.parametrize("flaw", FLAWS)
def test_each_flaw_is_found(flaw: Flaw) -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine(partial(Protocol, flaw)), settings=profile(ENOUGH, STEPS, shrink=False))
