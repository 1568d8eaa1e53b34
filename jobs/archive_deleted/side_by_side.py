"""Several connections of one run, each with a share of a table and a row of its own in ``job_run_ranges``.

A share is a part of the table's pages on PostgreSQL, and a range of its key where those are not walked, as on MySQL and
MariaDB. SQLite has one writer.

A batch of a share locks the share's row and the run's row shared, which whoever takes the run over waits for. Every
half second all of them pause: the run's own batch adds up what they have done, and whoever waits for the run's row (a
cancellation, say) gets it. Each session has a name of its own, by which it is found if it is stuck
(``db.run_sessions``).
"""

import asyncio
import time
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Table, delete, insert, select, update

from db.archives.walks import Stretch, Walk, split_keys
from db.connection import get_manager, get_reading_session
from db.models import JobRunRange
from jobs.archive_deleted.destinations import last_number
from jobs.archive_deleted.pieces import take_piece
from jobs.archive_deleted.sizes import choose_size
from jobs.archive_deleted.state import EndedBy, TableState, added
from jobs.archive_deleted.steps import BATCH_SETTINGS, SWIFT_STEPS, Batch, Step, Taken, impatient
from jobs.batch_size import BatchSize
from jobs.outcomes import JobFailed

if TYPE_CHECKING:
    from jobs.archive_deleted.job import Archive

ROUND_S = 0.5
NUMBERS_A_SHARE = 1_000_000
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


def can_be_shared(archive: "Archive", table: Table) -> bool:
    """Whether several connections can take a table's walk from where it stands to its end."""
    known, request = archive.state.of(table.fullname), archive.request
    if known.walk is None or known.walk.is_over or request.connections == 1 or request.max_rows is not None:
        return False
    if known.walk.kind != "keys":
        return known.walk.kind == "pages"
    # What was left behind lies where it lies, and a family has rows in several tables.
    is_simple = known.walks == 1 and len(table.primary_key) == 1 and not archive.plan.has_children(table)
    return is_simple and not get_manager().writers_take_turns


async def walk_side_by_side(archive: "Archive", table: Table) -> EndedBy | None:
    """Walk a table to its end, or to that of its pages; returns why the run ends before that, if it does."""
    shares, is_over = await _open_shares(archive, table), False
    while not is_over:
        await archive.throttle.hold(archive.request.until)
        archive.context.stop_if_asked()
        if (end := archive.limit_reached()) is not None:
            await _add_up(archive, table, shares, closing=True)
            return end
        until = time.monotonic() + ROUND_S
        working = [_work(archive, table, share, until) for share in shares if not share.walk.is_over]
        ended = await asyncio.gather(*working, return_exceptions=True)
        if errors := [error for error in ended if error is not None]:
            final = next((error for error in errors if isinstance(error, JobFailed)), None)
            if final is not None:  # nobody goes on with the run: what the others have done counts all the same
                await _add_up(archive, table, shares, closing=True)
            raise final or errors[0]
        is_over = await _add_up(archive, table, shares)
        await archive.publish()
    return None


async def close_shares(archive: "Archive", table: Table) -> None:
    """End the shares of a table that is shared no more, as a deploy has given it children: what they did counts."""
    if archive.request.connections > 1 and (shares := await _stored_shares(archive.context.run_id)):
        await _add_up(archive, table, shares, closing=True)


async def _stored_shares(run_id: UUID) -> list[Share]:
    async with get_reading_session() as session:
        query = select(JobRunRange.__table__).where(JobRunRange.run_id == run_id).order_by(JobRunRange.number)
        return [Share.from_row(row) for row in await session.execute(query)]


async def _open_shares(archive: "Archive", table: Table) -> list[Share]:
    run_id, known = archive.context.run_id, archive.state.of(table.fullname)
    shares = await _stored_shares(run_id)
    if not shares:
        pieces = await _split(table, known, archive.request.connections)
        first = await last_number(run_id) // NUMBERS_A_SHARE + 1
        shares = [Share(place, piece, (first + place) * NUMBERS_A_SHARE) for place, piece in enumerate(pieces)]
        async with archive.context.batch() as batch:
            rows = [{"run_id": run_id, "number": one.number, "cursor": one.cursor(), "counters": {}} for one in shares]
            await batch.session.execute(insert(JobRunRange), rows)
            batch.cursor, batch.counters = archive.state.as_json(), archive.counters
    size = await choose_size(archive.request, table, known)
    for share in shares:
        share.size = copy(size)
    return shares


async def _split(table: Table, known: TableState, count: int) -> list[Walk]:
    walk = known.walk
    assert walk is not None  # noqa: S101 - a walk has begun
    if walk.kind == "keys":
        async with get_reading_session() as session:
            left = Stretch(table, walk, known.before, known.due - known.moved_in_walk)
            return await split_keys(session, left, count)
    bounds = [walk.page + (walk.pages - walk.page) * number // count for number in range(count + 1)]
    return [Walk("pages", page=lower, pages=upper, is_over=lower == upper) for lower, upper in pairwise(bounds)]


async def _work(archive: "Archive", table: Table, share: Share, until: float) -> None:
    before, batch = archive.state.of(table.fullname).before, partial(_batch, archive, share)
    while not share.walk.is_over and time.monotonic() < until and not archive.context.should_stop():
        assert share.size is not None  # noqa: S101 - set when it was opened
        await take_piece(archive, Stretch(table, share.walk, before, share.size.rows), share.size, batch)


async def _batch(archive: "Archive", share: Share, stretch: Stretch, step: Step) -> Taken:
    began = time.monotonic()
    keeping = archive.keeping(first_number=share.files + 1)
    try:
        swift = step in SWIFT_STEPS
        async with (
            archive.context.batch_of_range(share.number, settings=BATCH_SETTINGS[swift]) as batch,
            impatient(batch.session, swift=swift),
        ):
            locking = time.monotonic()
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
    taken.committed(began, locking)
    share.walk, share.files, share.checksums, share.counters = done.walk, done.files, done.checksums, done.counters
    share.longest_s = max(share.longest_s, taken.seconds if taken.roots else 0.0)
    await archive.throttle.rest(taken.seconds)
    return taken


async def _add_up(archive: "Archive", table: Table, shares: list[Share], *, closing: bool = False) -> bool:
    """Move what the shares have done into the run's own cursor and counters; nothing of the run is open meanwhile.

    Returns:
        whether all of them are over.
    """
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
    return is_over
