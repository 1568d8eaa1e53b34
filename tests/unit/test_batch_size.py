"""How batches fit into a time."""

import pytest

from jobs.batch_size import FIRST_ROWS, LEAST_ROWS, TURN_S, BatchSize


def test_where_writers_do_not_take_turns_it_is_what_was_asked_for() -> None:
    size = BatchSize(1000, target_s=None)
    size.took(1000, 10.0)
    assert size.rows == 1000


def test_after_a_timeout_it_grows_to_what_was_asked_for_again() -> None:
    size = BatchSize(20, target_s=None)
    assert [size.shrink() for _ in range(3)] == [True, True, False]
    assert size.rows == 1
    sizes = []
    for _ in range(6):
        size.took(size.rows, 10.0)
        sizes.append(size.rows)
    assert sizes == [2, 4, 8, 16, 20, 20]


def test_it_grows_and_shrinks_towards_a_turn() -> None:
    size = BatchSize(1000, target_s=TURN_S)
    assert size.rows == FIRST_ROWS
    size.took(200, TURN_S / 10)
    assert size.rows == 400
    size.took(400, TURN_S)
    assert size.rows == 400
    size.took(400, 2 * TURN_S)
    assert size.rows == 200
    size.took(200, TURN_S / 3)
    size.took(400, TURN_S / 10)
    size.took(800, TURN_S / 10)
    assert size.rows == 1000
    size.took(0, 5.0)
    assert size.rows == 1000
    size.took(1000, 60.0)
    assert size.rows == LEAST_ROWS
    size.took(1, 0.0)
    assert size.rows == 2 * LEAST_ROWS


@pytest.mark.parametrize("most", [1, 5, 150])
def test_what_was_asked_for_is_the_bound(most: int) -> None:
    size = BatchSize(most, target_s=TURN_S)
    assert size.rows == most
    size.took(most, 0.0)
    assert size.rows == most
    size.took(most, 60.0)
    assert size.rows == min(most, LEAST_ROWS)


def test_after_a_timeout_it_becomes_a_quarter_down_to_one() -> None:
    size = BatchSize(1000, target_s=TURN_S, first=30)
    assert [(size.shrink(), size.rows) for _ in range(4)] == [(True, 7), (True, 1), (False, 1), (False, 1)]


def test_beside_others_a_batch_takes_a_quarter_of_its_time() -> None:
    size = BatchSize(1000, target_s=TURN_S, first=400)
    size.took(400, TURN_S, beside_others=True)
    assert size.rows == 100
    size.took(100, TURN_S / 4)
    assert size.rows == 200
