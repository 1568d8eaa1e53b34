"""``python -m bench archive``: take every figure and print the table."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.archive import measures
from bench.archive.arena import Arena
from bench.queue.scale import Scale
from bench.queue.table import Row, as_markdown
from tests.servers import MissingBinaryError

Measure = Callable[[Arena, Scale], list[Row]]

MEASURES: dict[str, tuple[Measure, str]] = {
    "postgresql": (measures.postgresql, "44 % due: to a table, by two connections, to files, under an old snapshot"),
    "sparse": (measures.sparse, "1 % due"),
    "oltp": (measures.oltp, "short transactions beside it"),
    "mariadb": (measures.mariadb, "by one and by two connections, beside pt-archiver"),
    "growth": (measures.growth, "100,000 and 10,000,000 rows, and memory"),
}


def main(arguments: Sequence[str]) -> int:
    """Run the driver; returns its exit code: 1 where something must be reached and was not."""
    chosen = _parse(arguments)
    scale = Scale(chosen.repeats, chosen.share)
    rows: list[Row] = []
    with Arena() as arena:
        for name in MEASURES if chosen.only is None else chosen.only:
            began = time.monotonic()
            try:
                rows += MEASURES[name][0](arena, scale)
            except MissingBinaryError as error:
                print(f"{name}: not measured: {error}", file=sys.stderr)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(as_markdown(rows))
    if chosen.json:
        chosen.json.write_text(json.dumps([row.as_dict() for row in rows], indent=1) + "\n")
    return 1 if any(row.is_met is False for row in rows) else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    lines = [f"  {name:<11} {purpose}" for name, (_, purpose) in MEASURES.items()]
    parser = argparse.ArgumentParser(
        "python -m bench archive",
        description="Measure the archive beside what one would write by hand, each figure several times in one run.",
        epilog="measures:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", metavar="MEASURE", help="not all of them")
    parser.add_argument("--repeats", type=int, default=3, help="how often each figure is taken (3)")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts; small ones are for trying out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.only or ()) - set(MEASURES):
        parser.error(f"--only {min(unknown)}: must be one of {', '.join(MEASURES)}")
    return chosen
