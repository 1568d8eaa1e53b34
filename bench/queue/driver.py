"""``python -m bench queue``: take every figure and print the table."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.queue import claims, drains, moments, outboxes, pages, peers
from bench.queue.arena import Arena
from bench.queue.scale import Scale
from bench.queue.table import Row, as_markdown
from tests.servers import MissingBinaryError

Measure = Callable[[Arena, Scale], list[Row]]

MEASURES: dict[str, tuple[Measure, str]] = {
    "light": (drains.light, "drain a light kind beside stock and tuned arq; commands and round trips per run"),
    "aof": (drains.light_persistent, "the same with AOF everysec"),
    "ledgered": (drains.ledgered, "drain ledgered kinds, on PostgreSQL with fsync"),
    "workers": (drains.workers, "1, 2, 4 and 8 workers"),
    "naps": (drains.naps, "jobs of 50 ms on 10 slots"),
    "enqueue": (moments.enqueueing, "enqueue one by one, and many"),
    "pickup": (moments.pickup, "how soon an idle worker starts a run, of our client and of arq's"),
    "deferred": (moments.deferred, "how late a deferred run starts"),
    "idle": (moments.idle, "what a worker costs that has nothing to do"),
    "claims": (claims.behind_running, "claim behind 5,000 running"),
    "outbox": (outboxes.outboxes, "what the outbox costs a producer, and how fast it reaches Redis"),
    "depth": (drains.depth, "drain with 1,000,000 queued, and their memory"),
    "pages": (pages.pages, "a page of 50 of 100,000 and of 1,000,000 queued"),
}


def main(arguments: Sequence[str]) -> int:
    """Run the driver; returns its exit code: 1 where something must be reached and was not."""
    chosen = _parse(arguments)
    scale = Scale(chosen.repeats, chosen.share)
    rows: list[Row] = []
    with Arena() as arena:
        for name in MEASURES if chosen.only is None else chosen.only:
            rows += _take(name, MEASURES[name][0], arena, scale)
        if chosen.peers:
            count = None if scale.share == 1 else scale.of(20_000)
            rows += peers.measure(chosen.peers, arena, scale, phases=chosen.phases, count=count)
    print(as_markdown(rows))
    if chosen.json:
        chosen.json.write_text(json.dumps([row.as_dict() for row in rows], indent=1) + "\n")
    return 1 if any(row.is_met is False for row in rows) else 0


def _take(name: str, measure: Measure, arena: Arena, scale: Scale) -> list[Row]:
    began = time.monotonic()
    try:
        return measure(arena, scale)
    except MissingBinaryError as error:
        print(f"{name}: not measured: {error}", file=sys.stderr)
        return []
    finally:
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    lines = [f"  {name:<9} {purpose}" for name, (_, purpose) in MEASURES.items()]
    parser = argparse.ArgumentParser(
        "python -m bench queue",
        description="Measure the queue beside stock arq, in one run, each figure several times.",
        epilog="measures:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", nargs="*", metavar="MEASURE", help="not all of them; none with --peers: the peers alone"
    )
    parser.add_argument("--repeats", type=int, default=3, help="how often each figure is taken (3)")
    parser.add_argument("--share", type=float, default=1.0, help="of the full counts; small ones are for trying out")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="the peers' harness: run it with our adapter")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--phases", default=peers.PHASES, help="of the peers' harness, with commas between")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.only or ()) - set(MEASURES):
        parser.error(f"--only {min(unknown)}: must be one of {', '.join(MEASURES)}")
    return chosen
