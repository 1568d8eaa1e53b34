"""How large and how often a run measures."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run.

    Args:
        repeats: how often each figure is taken.
        share: of the full counts; small ones are for trying the driver out, their figures mean little.
    """

    repeats: int = 3
    share: float = 1.0

    def of(self, count: int, *, least: int = 20) -> int:
        """Return this run's share of a count."""
        return max(min(least, count), round(count * self.share))

    def rounds(self) -> Iterator[int]:
        """Walk the repetitions."""
        yield from range(self.repeats)
