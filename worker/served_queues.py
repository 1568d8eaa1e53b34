"""The queues that a worker serves, in the order of their priority."""

from collections.abc import Iterable
from dataclasses import dataclass

LONGEST_NAME = 100
"""Characters of a queue's key, which stands in an indexed column of the ledger."""
MOST_SLOTS = 10_000


@dataclass(frozen=True, slots=True)
class ServedQueue:
    """One queue of a worker."""

    name: str
    """Its key in Redis."""
    slots: int | None = None
    """The most runs of it that one worker has at the same time; None: as many as the worker has at all."""


def read_queues(words: Iterable[str]) -> tuple[ServedQueue, ...]:
    """Read queues as users write them: ``high=5`` is at most five runs at the same time, ``default`` any number.

    Raises:
        ValueError: a name is missing, too long or given twice, or the slots are no number; the text is the rule.
    """
    queues = tuple(_read(word.strip()) for word in words)
    names = [queue.name for queue in queues]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"names {repeated} twice: name each queue once, the most urgent one first")
    return queues


def _read(word: str) -> ServedQueue:
    # Not behind a colon: the keys of queues have colons themselves.
    name, separator, slots = word.rpartition("=") if "=" in word else (word, "", "")
    if not 0 < len(name) <= LONGEST_NAME:
        raise ValueError(f"has a queue's name of {len(name)} characters: write 1 to {LONGEST_NAME}, as in high=5,low")
    if not separator:
        return ServedQueue(name)
    if not slots.isdecimal() or not 1 <= int(slots) <= MOST_SLOTS:
        raise ValueError(f"gives {name} {slots or 'no'} slots: write a number from 1 to {MOST_SLOTS}, as in {name}=5")
    return ServedQueue(name, int(slots))
