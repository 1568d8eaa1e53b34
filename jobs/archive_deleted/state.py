"""How far a run has come: what its cursor and its counters hold."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from db.archives.walks import Walk
from holdfast.requests import KEPT_ROWS_NAMED


def added(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
    """Return the sums by name."""
    return first | {name: first.get(name, 0) + count for name, count in second.items()}


EndedBy = Literal["done", "max_rows", "until"]
"""Why a run ends."""


@dataclass(frozen=True, slots=True)
class TableState:
    """One table's share."""

    name: str
    before: datetime
    """Rows that were deleted before it are due."""
    due: int
    walk: Walk | None = None
    """None before its first batch."""
    walks: int = 0
    """How often the table was walked, this time included."""
    moved_in_walk: int = 0
    kept: int = 0
    """Due rows that stay; of the last walk, for each meets all of them again."""
    left: int | None = None
    """Due rows that are still there at its end, those that stay not counted. None: it is not done."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "name": self.name,
            "before": self.before.isoformat(),
            "due": self.due,
            "walk": None if self.walk is None else self.walk.as_json(),
            "walks": self.walks,
            "moved_in_walk": self.moved_in_walk,
            "kept": self.kept,
            "left": self.left,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TableState":
        """Return what ``as_json`` has told."""
        walk = None if values["walk"] is None else Walk.from_json(values["walk"])
        return cls(**{**values, "before": datetime.fromisoformat(values["before"]), "walk": walk})


@dataclass(frozen=True, slots=True)
class State:
    """The whole run's cursor."""

    tables: tuple[TableState, ...]
    checksums: dict[str, int] = field(default_factory=dict)
    kept_rows: tuple[dict[str, str], ...] = ()
    longest_s: float = 0.0
    elapsed_s: float = 0.0
    paused_s: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "tables": [table.as_json() for table in self.tables],
            "checksums": {name: str(checksum) for name, checksum in self.checksums.items()},
            "kept_rows": list(self.kept_rows),
            "longest_s": round(self.longest_s, 6),
            "elapsed_s": round(self.elapsed_s, 3),
            "paused_s": round(self.paused_s, 3),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "State":
        """Return what ``as_json`` has told."""
        return cls(
            **{
                **values,
                "tables": tuple(map(TableState.from_json, values["tables"])),
                "checksums": {name: int(checksum) for name, checksum in values["checksums"].items()},
                "kept_rows": tuple(values["kept_rows"]),
            }
        )

    def of(self, name: str) -> TableState:
        """Return a table's share."""
        return next(table for table in self.tables if table.name == name)

    def with_table(self, changed: TableState) -> "State":
        """Return it with another share of one table."""
        return replace(self, tables=tuple(changed if table.name == changed.name else table for table in self.tables))

    def with_checksums(self, more: dict[str, int]) -> "State":
        """Return it with checksums added to those of the batches before."""
        return replace(self, checksums=added(self.checksums, more))

    def with_kept_rows(self, table: str, rows: Iterable[dict[str, str]], *, anew: bool) -> "State":
        """Return it with more rows that stay, as many as are named; ``anew`` forgets those of the table before."""
        known = [row for row in self.kept_rows if not (anew and row["table"] == table)]
        return replace(self, kept_rows=tuple([*known, *rows][:KEPT_ROWS_NAMED]))


@dataclass(frozen=True, slots=True)
class Progressed:
    """What the batches of a run have done so far, in all its attempts."""

    state: State
    counters: dict[str, int]
