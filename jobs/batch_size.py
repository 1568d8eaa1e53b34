"""How much the next batch of a job takes on, so that each takes about the same time."""

TURN_S = 0.05
"""About so long one batch may hold up every other writer, where there is only one at a time."""
BESIDE_OTHERS = 0.25
"""The part of its time that a batch takes beside others: with half of it their p99 was 2.1 times that without a batch,
with a quarter 1.7 times (``python -m bench archive --only oltp``)."""
FIRST_ROWS = 200
LEAST_ROWS = 20


class BatchSize:
    """The size of the next batch: as much as was asked for, or what fits into a time.

    Args:
        most: the rows (or pages, whatever the batches are counted in) that were asked for.
        target_s: how long a batch is to take; None: every batch is as large as was asked for, or
            grows to it again after ``shrink``.
        first: the size of the first one.
        least: a batch that was too slow for reasons of its own is followed by one of at least this size.
    """

    def __init__(self, most: int, *, target_s: float | None, first: int = FIRST_ROWS, least: int = LEAST_ROWS) -> None:
        self._most = most
        self._least = least
        self._target_s = target_s
        self.rows = most if target_s is None else min(most, first)

    def took(self, rows: int, seconds: float, *, beside_others: bool = False) -> None:
        """Hear how long a batch took, and make the next one fit; it grows to at most twice the size.

        Args:
            rows: how many it had.
            seconds: how long it took.
            beside_others: somebody may wait for what the next one holds up: ``BESIDE_OTHERS`` of the time is enough.
        """
        if self._target_s is None:
            self.rows = min(self._most, 2 * self.rows)
        elif rows:
            target_s = self._target_s * BESIDE_OTHERS if beside_others else self._target_s
            fitting = int(rows * target_s / max(seconds, 0.001))
            self.rows = min(self._most, max(self._least, min(fitting, 2 * self.rows)))

    def shrink(self) -> bool:
        """Make the next one a quarter of it, after a timeout; returns False where it cannot become smaller."""
        shrinks = self.rows > 1
        self.rows = max(1, self.rows // 4)
        return shrinks
