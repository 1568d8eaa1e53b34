"""Transactions that lose a race."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

from sqlalchemy.exc import IntegrityError

RACES = 5

T = TypeVar("T")


async def again_after_race(transaction: Callable[[], Awaitable[T]]) -> T:
    """Run a transaction, and again when another one took its key at the same moment.

    Raises:
        sqlalchemy.exc.IntegrityError: it happened ``RACES`` times: that is no race.
    """
    for _ in range(RACES - 1):
        with suppress(IntegrityError):
            return await transaction()
    return await transaction()
