"""What happens to a test whose server is not on this machine: skipped and counted, or failed where `CI=true`."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, TypeVar

import pytest

from tests.servers import MissingBinaryError

Made = TypeVar("Made")

_REASONS = pytest.StashKey[set[str]]()
_HANDED_OVER = "holdfast_missing"


def made_or_skipped(make: Callable[[], Made], config: pytest.Config) -> Made:
    """Returns what the callable makes; the test is skipped, or fails on CI, when it misses a server's binary.

    Args:
        make: a server class, or any callable that raises `MissingBinaryError`.
        config: pytest's configuration (the fixture `pytestconfig`).
    """
    try:
        return make()
    except MissingBinaryError as error:
        skip_missing(str(error), config)


def skip_missing(reason: str, config: pytest.Config) -> NoReturn:
    """Skips the test because something is not installed, or fails it on CI; the run's last lines count such skips.

    Args:
        reason: what is missing and how to get it, in one line.
        config: pytest's configuration (the fixture `pytestconfig`).
    """
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason} (CI=true: a test may not be skipped for it)", pytrace=False)
    config.stash.setdefault(_REASONS, set()).add(reason)
    pytest.skip(reason)


def hand_over(config: pytest.Config) -> None:
    """Tells the run's main process what was missing in this one, where several share the tests (pytest-xdist)."""
    output: dict[str, object] | None = getattr(config, "workeroutput", None)
    if output is not None:
        reasons: set[str] = config.stash.get(_REASONS, set())
        output[_HANDED_OVER] = sorted(reasons)


def take_over(config: pytest.Config, output: Mapping[str, Iterable[str]]) -> None:
    """Takes what `hand_over` of another process has told."""
    config.stash.setdefault(_REASONS, set()).update(output.get(_HANDED_OVER, ()))


def summarize(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Writes how many tests were skipped for what was missing; nothing when none was."""
    reasons = config.stash.get(_REASONS, set())
    skipped = Counter(reason for report in reporter.stats.get("skipped", []) if (reason := _reason(report)) in reasons)
    if not skipped:
        return
    reporter.section("skipped for what is not installed")
    for reason, count in sorted(skipped.items()):
        reporter.line(f"{count} {'test' if count == 1 else 'tests'} skipped: {reason}")


def _reason(report: object) -> str:
    place = getattr(report, "longrepr", None)
    return str(place[2]).removeprefix("Skipped: ") if isinstance(place, tuple) else ""
