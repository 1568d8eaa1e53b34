"""Figures of one run, what they must reach, and the table that shows both."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure must reach: a bound, of the figure itself or of its ratio to the base."""

    sign: Literal[">=", "<="]
    bound: float
    of_base: bool = False

    def __str__(self) -> str:
        return f"{self.sign} {_number(self.bound)}{'x' if self.of_base else ''}"

    def is_met(self, value: float) -> bool:
        """Whether a figure (or ratio) reaches it."""
        return value >= self.bound if self.sign == ">=" else value <= self.bound


def at_least(bound: float) -> Target:
    """Return a target for the figure itself."""
    return Target(">=", bound)


def at_most(bound: float) -> Target:
    """Return a target for the figure itself."""
    return Target("<=", bound)


def at_least_times(bound: float) -> Target:
    """Return a target for the ratio to the base."""
    return Target(">=", bound, of_base=True)


def at_most_times(bound: float) -> Target:
    """Return a target for the ratio to the base."""
    return Target("<=", bound, of_base=True)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: the figures of each repetition, ours and those of the base beside them."""

    measure: str
    unit: str
    ours: Sequence[float]
    base: Sequence[float] = ()
    base_name: str = "stock arq"
    target: Target | None = None
    by_rounds: bool = True
    """Whether each of ours was taken right before or after that of the base in its place."""

    @property
    def ratios(self) -> list[float]:
        """Ours over the base's in each round, whose figures were taken one after the other.

        A machine that others share is twice as fast in one minute as in the next, which moves the medians of two
        contestants apart and both figures of a round together. Where they were not taken in the same rounds it is the
        ratio of the medians alone.
        """
        if self.by_rounds and len(self.ours) == len(self.base) and all(self.base):
            return [ours / base for ours, base in zip(self.ours, self.base, strict=True)]
        middle = statistics.median(self.base) if self.base else 0.0
        return [statistics.median(self.ours) / middle] if middle else []

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target is None:
            return None
        value = self.ratio if self.target.of_base else statistics.median(self.ours)
        return value is not None and self.target.is_met(value)

    def as_dict(self) -> dict[str, object]:
        """Return it as ``--json`` shows it."""
        return {
            "measure": self.measure,
            "unit": self.unit,
            "ours": list(self.ours),
            "base": list(self.base),
            "base_name": self.base_name,
            "ratio": self.ratio,
            "ratios": self.ratios,
            "target": None if self.target is None else str(self.target),
            "met": self.is_met,
        }

    def cells(self) -> tuple[str, ...]:
        """Return it as words."""
        verdict = {True: "yes", False: "NO", None: ""}[self.is_met]
        base = f"{_spread(self.base)} ({self.base_name})" if self.base else "-"
        ratio = _spread(self.ratios, "x") if self.ratios else "-"
        return (
            self.measure,
            self.unit,
            _spread(self.ours),
            base,
            ratio,
            "" if self.target is None else str(self.target),
            verdict,
        )


HEAD = ("measure", "unit", "ours: median (least to most)", "beside it", "ratio", "must reach", "reached")


def as_markdown(rows: Sequence[Row]) -> str:
    """Return the table, readable as text and as Markdown."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    shown = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    shown.insert(1, " | ".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" for line in shown)


def _spread(values: Sequence[float], unit: str = "") -> str:
    middle = f"{_number(statistics.median(values))}{unit}"
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".") or "0"
