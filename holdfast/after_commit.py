"""Ringing the bell after the commit of a session that has enqueued; ``holdfast.outbox`` hands it out."""

from typing import TYPE_CHECKING

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from holdfast.client import Client

CLIENT = "holdfast.outbox.client"
"""Where a session's ``info`` holds the client that rings."""
QUEUES = "holdfast.outbox.queues"
"""Where it holds the queues to ring at the next commit."""


def ring_after_commit(sessions: async_sessionmaker[AsyncSession] | AsyncSession, client: "Client") -> None:
    """Let idle workers start what ``enqueue`` writes as soon as its transaction is committed; call it once.

    The ring is one command to Redis in a task of its own, after the commit: it never fails or delays a transaction, and
    many commits at once ring once. Where it is lost, or Redis is away, the workers' next look finds the run. An
    ``AsyncConnection`` tells nobody of its commit: call ``client.ring()`` after it.

    Args:
        sessions: the maker of your sessions, for all that it makes from now on; or one session.
        client: a client that lives as long as they do; its Redis is the workers'.
    """
    if isinstance(sessions, AsyncSession):
        sessions.info[CLIENT] = client
        event.listen(sessions.sync_session, "after_commit", _ring)
        return
    # A class of sessions of its own: to listen to each session would cost more than all else that enqueue() does.
    usual = sessions.kw.get("sync_session_class") or sessions.class_.sync_session_class
    ringing = type(f"Ringing{usual.__name__}", (usual,), {})
    event.listen(ringing, "after_commit", _ring)
    sessions.configure(info={**(sessions.kw.get("info") or {}), CLIENT: client}, sync_session_class=ringing)


def ring_later(session: AsyncSession | AsyncConnection, queue: str) -> None:
    """Ring this queue's bell when the session's transaction is committed, if it has a client to do so."""
    sync_session = getattr(session, "sync_session", None)
    if sync_session is None or CLIENT not in sync_session.info:
        return
    sync_session.info.setdefault(QUEUES, set()).add(queue)


def _ring(session: "Session") -> None:
    if session.in_nested_transaction():  # only a savepoint was released
        return
    queues: set[str] = session.info.get(QUEUES, set())
    while queues:
        session.info[CLIENT].ring(queues.pop())
