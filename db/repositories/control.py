"""What operators say about queues and kinds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db.models import Control
from db.repositories.due_runs import IS_RUNNING
from db.types import utc_now
from holdfast.outbox import job_runs

ControlRow = Any
"""A row with the columns of ``controls`` as its attributes."""
Limit = tuple[str, str, int]
"""Scope, name, and the most that may run at the same time."""


@dataclass(frozen=True, slots=True)
class Controls:
    """All controls at one moment."""

    paused: frozenset[tuple[str, str]] = frozenset()
    limits: tuple[Limit, ...] = ()
    full: frozenset[tuple[str, str]] = frozenset()
    """Scopes whose limit is reached."""

    def obstacle(self, *, queue: str, kind: str) -> str | None:
        """Return why a run may not start now: ``paused``, ``limited``, or None."""
        if not self.paused and not self.full:
            return None
        scopes = {("queue", queue), ("kind", kind)}
        if scopes & self.paused:
            return "paused"
        return "limited" if scopes & self.full else None

    def bar(self, *, queue: str, kind: str) -> str | None:
        """Return why no run may start until an operator lets it: ``paused``, ``limited`` (to none), or None."""
        scopes = {("queue", queue), ("kind", kind)}
        if scopes & self.paused:
            return "paused"
        return "limited" if any(limit[:2] in scopes and limit[2] == 0 for limit in self.limits) else None

    def limits_of(self, *, queue: str, kind: str) -> tuple[Limit, ...]:
        """Return the limits that a run has to keep."""
        if not self.limits:
            return ()
        scopes = {("queue", queue), ("kind", kind)}
        return tuple(limit for limit in self.limits if limit[:2] in scopes)


_ALL = select(*(column for column in Control.__table__.columns))


async def load_controls(reader: AsyncConnection) -> Controls:
    """Read the controls, and count what runs where a limit asks for it."""
    return await controls_of(reader, (await reader.execute(_ALL)).all())


async def controls_of(reader: AsyncConnection, rows: Sequence[ControlRow]) -> Controls:
    """Make the controls of their rows, and count what runs where a limit asks for it."""
    limits = tuple((row.scope, row.name, row.max_running) for row in rows if row.max_running is not None)
    return Controls(
        paused=frozenset((row.scope, row.name) for row in rows if row.paused_at is not None),
        limits=limits,
        full=frozenset([(scope, name) for scope, name, most in limits if await _running(reader, scope, name) >= most]),
    )


async def is_full(session: AsyncSession, limits: Sequence[Limit]) -> bool:
    """Whether one more run would exceed one of these limits; nobody else begins one before this transaction ends."""
    for scope, name, most in sorted(limits):
        row = select(Control.scope).where(Control.scope == scope, Control.name == name)
        await session.execute(row.with_for_update())
        if await _running(session, scope, name) >= most:
            return True
    return False


async def set_paused(session: AsyncSession, scope: str, name: str, *, paused: bool) -> None:
    """Pause a queue or kind, or let it go on."""
    await _upsert(session, scope, name, {"paused_at": utc_now() if paused else None})


async def set_limit(session: AsyncSession, scope: str, name: str, max_running: int | None) -> None:
    """Limit how many runs of a queue or kind run at the same time; None: no limit."""
    await _upsert(session, scope, name, {"max_running": max_running})


async def _upsert(session: AsyncSession, scope: str, name: str, values: dict[str, object]) -> None:
    where = (Control.scope == scope, Control.name == name)
    changed = await session.execute(update(Control).where(*where).values(values))
    if changed.rowcount == 0:  # type: ignore[attr-defined]
        await session.execute(insert(Control).values(scope=scope, name=name, **values))
    await session.execute(delete(Control).where(Control.paused_at.is_(None), Control.max_running.is_(None)))


async def _running(reader: AsyncConnection | AsyncSession, scope: str, name: str) -> int:
    column = job_runs.c.queue if scope == "queue" else job_runs.c.kind
    query = select(func.count()).select_from(job_runs).where(*IS_RUNNING, column == name)
    running: int = (await reader.execute(query)).scalar_one()
    return running
