"""Several connections of one run, each with a share of the table's pages and a row of its own in ``job_run_ranges``.

A batch of a share locks the share's row and the run's row shared, which whoever takes the run over waits for. Every
half second all of them pause: the run's own batch adds up what they have done, and whoever waits for the run's row (a
cancellation, say) gets it. On PostgreSQL only: SQLite has one writer, and MySQL finds a stuck session by a lock that
one connection has.
"""

import asyncio
import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from db.archives.rows import ProofFailed
from db.archives.walks import Stretch, Walk
from db.connection import get_reading_session
from db.models import JobRunRange
from jobs.archive_deleted.destinations import last_number
from jobs.archive_deleted.state import EndedBy, added
from jobs.archive_deleted.steps import SWIFT_STEPS, Batch, Step, Taken, impatient, is_lock_conflict
from jobs.batch_size import BatchSize

if TYPE_CHECKING:
    from jobs.archive_deleted.job import Archive

ROUND_S = 0.5
NUMBERS_A_SHARE = 10_000_000
"""The parts of a share's files are numbered apart from those of others."""


@dataclass(slots=True)
class Share:
    """One connection's part of a walk."""

    number: int
    walk: Walk
    files: int = 0
    """The number of its last file."""
    checksums: dict[str, int] = field(default_factory=dict)
    """Of the batches since the run's own last batch, as the counters."""
    longest_s: float = 0.0
    counters: dict[str, int] = field(default_factory=dict)
    size: BatchSize | None = None

    def cursor(self) -> dict[str, Any]:
        """Return it as JSON values, without the counters."""
        checksums = {name: str(checksum) for name, checksum in self.checksums.items()}
        return {"walk": self.walk.as_json(), "files": self.files, "checksums": checksums, "longest_s": self.longest_s}

    @classmethod
    def from_row(cls, row: Any) -> "Share":
        """Return what a row of ``job_run_ranges`` tells."""
        cursor = row.cursor
        checksums = {name: int(checksum) for name, checksum in cursor["checksums"].items()}
        walk = Walk.from_json(cursor["walk"])
        return cls(row.number, walk, cursor["files"], checksums, cursor["longest_s"], dict(row.counters))


async def walk_side_by_side(archive: "Archive", table: Table) -> EndedBy | None:
    """Walk a table's pages to their end; returns why the run ends before that, if it does."""
    shares = await _open_shares(archive, table)
    while any(not share.walk.is_over for share in shares):
        await archive.throttle.hold()
        archive.context.stop_if_asked()
        if (end := archive.limit_reached()) is not None:
            await _add_up(archive, table, shares, closing=True)
            return end
        until = time.monotonic() + ROUND_S
        working = [_work(archive, table, share, until) for share in shares if not share.walk.is_over]
        ended = await asyncio.gather(*working, return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error
        await _add_up(archive, table, shares)
        await archive.publish()
    return None


async def _open_shares(archive: "Archive", table: Table) -> list[Share]:
    run_id, walk = archive.context.run_id, archive.state.of(table.fullname).walk
    assert walk is not None  # noqa: S101 - a walk has begun
    async with get_reading_session() as session:
        query = select(JobRunRange.__table__).where(JobRunRange.run_id == run_id).order_by(JobRunRange.number)
        shares = [Share.from_row(row) for row in await session.execute(query)]
    if not shares:
        count, begin = archive.request.connections, walk.page
        bounds = [begin + (walk.pages - begin) * number // count for number in range(count + 1)]
        pieces = [Walk("pages", page=lower, pages=upper, is_over=lower == upper) for lower, upper in pairwise(bounds)]
        first = await last_number(run_id) // NUMBERS_A_SHARE + 1
        shares = [Share(place, piece, (first + place) * NUMBERS_A_SHARE) for place, piece in enumerate(pieces)]
        async with archive.context.batch() as batch:
            rows = [{"run_id": run_id, "number": one.number, "cursor": one.cursor(), "counters": {}} for one in shares]
            await batch.session.execute(insert(JobRunRange), rows)
            batch.cursor, batch.counters = archive.state.as_json(), archive.counters
    for share in shares:
        share.size = archive.batch_size(walk)
    return shares


async def _work(archive: "Archive", table: Table, share: Share, until: float) -> None:
    while not share.walk.is_over and time.monotonic() < until and not archive.context.should_stop():
        assert share.size is not None  # noqa: S101 - set when it was opened
        stretch = Stretch(table, share.walk, archive.state.of(table.fullname).before, share.size.rows)
        try:
            taken, seconds = await _batch(archive, stretch, share, Batch.take_pages)
            share.size.took(taken.effort, seconds, beside_others=archive.throttle.share < 1)
            await archive.throttle.rest(seconds)
        except (ProofFailed, DBAPIError) as error:
            if not isinstance(error, ProofFailed) and not is_lock_conflict(error):
                raise
            await _batch(archive, stretch, share, Batch.take_pages_by_row)


async def _batch(archive: "Archive", stretch: Stretch, share: Share, step: Step) -> tuple[Taken, float]:
    began = time.monotonic()
    keeping = archive.keeping(first_number=share.files + 1)
    try:
        swift = step in SWIFT_STEPS
        async with archive.context.batch_of_range(share.number) as batch, impatient(batch.session, swift=swift):
            taken = await step(Batch(batch.session, archive.plan, keeping), stretch)
            await keeping.settle(batch.session)
            done = replace(
                share,
                walk=taken.walk,
                files=share.files + keeping.counters.get("files", 0),
                checksums=added(share.checksums, taken.checksums),
                counters=added(share.counters, archive.counts_of(taken, keeping)),
            )
            batch.cursor, batch.counters = done.cursor(), done.counters
    finally:
        await keeping.end(discard=False)
    seconds = time.monotonic() - began
    share.walk, share.files, share.checksums, share.counters = done.walk, done.files, done.checksums, done.counters
    share.longest_s = max(share.longest_s, seconds if taken.roots else 0.0)
    return taken, seconds


async def _add_up(archive: "Archive", table: Table, shares: list[Share], *, closing: bool = False) -> None:
    """Move what the shares have done into the run's own cursor and counters; nothing of the run is open meanwhile."""
    of_run = JobRunRange.run_id == archive.context.run_id
    state, counters = archive.state, archive.counters
    known = state.of(table.fullname)
    roots = sum(share.counters.get("rows", 0) for share in shares)
    for share in shares:
        state = state.with_checksums(share.checksums)
        state = replace(state, longest_s=max(state.longest_s, share.longest_s))
        counters = added(counters, share.counters)
    walk = known.walk
    is_over = all(share.walk.is_over for share in shares)
    if is_over and walk is not None:
        walk = replace(walk, page=walk.pages, is_over=True)
    state = state.with_table(replace(known, walk=walk, moved_in_walk=known.moved_in_walk + roots))
    state = archive.timed(state)
    async with archive.context.batch() as batch:
        batch.cursor, batch.counters = state.as_json(), counters
        if is_over or closing:
            await batch.session.execute(delete(JobRunRange).where(of_run))
        for share in shares if not (is_over or closing) else ():
            share.checksums, share.counters = {}, {}
            row = update(JobRunRange).where(of_run, JobRunRange.number == share.number)
            await batch.session.execute(row.values(cursor=share.cursor(), counters={}))
    archive.state, archive.counters = state, counters
    archive.throttle.committed(counters.get("batches", 0))
