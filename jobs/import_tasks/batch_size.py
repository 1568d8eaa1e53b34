"""How many rows the next batch of an import has."""

TURN_S = 0.05
"""About so long one batch may hold up every other writer, where there is only one at a time."""
FIRST_ROWS = 200
LEAST_ROWS = 20


class BatchSize:
    """The size of the next batch: as asked for, or as large as fits into a writer's turn.

    Args:
        most: the rows that were asked for.
        takes_turns: whether all writers wait while a batch is written (SQLite).
    """

    def __init__(self, most: int, *, takes_turns: bool) -> None:
        self._most = most
        self._takes_turns = takes_turns
        self.rows = min(most, FIRST_ROWS) if takes_turns else most

    def took(self, rows: int, seconds: float) -> None:
        """Hear how long a batch took, and make the next one fit; it grows to at most twice the size."""
        if self._takes_turns and rows:
            fitting = int(rows * TURN_S / max(seconds, 0.001))
            self.rows = min(self._most, max(LEAST_ROWS, min(fitting, 2 * self.rows)))
