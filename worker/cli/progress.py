"""A progress bar on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from holdfast.progress import Progress


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress | None], None]]:
    """Yield a function that shows a ``Progress``; it does nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    columns: list[Any] = [
        TextColumn("{task.description}"),
        BarColumn(),
        _Amount(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    ]
    with ProgressBar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("running", total=None, note="", unit="rows")

        def show(progress: Progress | None) -> None:
            if progress is not None:
                note = "  ".join(f"{name} {count:,}" for name, count in progress.counters.items() if count)
                bar.update(task, completed=progress.done, total=progress.total, note=note, unit=progress.unit)

        yield show


class _Amount(DownloadColumn):
    """Bytes as sizes, everything else as counts."""

    def render(self, task: Any) -> Any:
        """Draw the cell."""
        return super().render(task) if task.fields.get("unit") == "bytes" else MofNCompleteColumn().render(task)
