"""Which server this ledger lives on: a clone that was started elsewhere is held until it is adopted."""

from contextlib import suppress
from pathlib import Path

from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from db.models import Installation
from db.types import utc_now
from holdfast.outbox import uuid7

POSTGRESQL = """
SELECT concat_ws(' ', 'postgresql', (SELECT system_identifier FROM pg_control_system()), d.oid, d.datname,
                 host(inet_server_addr()), inet_server_port())
FROM pg_database d WHERE d.datname = current_database()
"""
MYSQL = "SELECT CONCAT_WS(' ', 'mysql', @@hostname, @@port, @@datadir, DATABASE())"
ONLY_ROW = 1


async def describe_server(session: AsyncSession) -> str:
    """Return what tells this database from a copy of it elsewhere."""
    bind = session.get_bind()
    if bind.dialect.name == "sqlite":
        name = (await session.execute(text("SELECT file FROM pragma_database_list WHERE name = 'main'"))).scalar_one()
        return _describe_file(name)
    query = POSTGRESQL if bind.dialect.name == "postgresql" else MYSQL
    found: str = (await session.execute(text(query))).scalar_one()
    return found[:500]


async def get_installation(session: AsyncSession) -> Installation | None:
    """Return the ledger's row, None before the first worker has started."""
    return (await session.execute(select(Installation))).scalar_one_or_none()


async def adopt(session: AsyncSession) -> Installation:
    """Say that the ledger belongs to this server from now on; returns the row."""
    server = await describe_server(session)
    changed = await session.execute(
        update(Installation).where(Installation.id == ONLY_ROW).values(server=server, adopted_at=utc_now())
    )
    if changed.rowcount == 0:  # type: ignore[attr-defined]
        values = {"id": ONLY_ROW, "installation_id": uuid7(), "server": server, "adopted_at": utc_now()}
        await session.execute(insert(Installation).values(values))
    installation = await get_installation(session)
    assert installation is not None  # noqa: S101 - written one statement before
    return installation


async def is_held(session: AsyncSession) -> bool:
    """Whether this ledger was made on another server; a ledger without an owner is adopted."""
    installation = await get_installation(session)
    if installation is None:
        with suppress(IntegrityError):  # another worker starts at the same moment and was first
            async with session.begin_nested():
                await adopt(session)
        installation = await get_installation(session)
    return installation is None or installation.server != await describe_server(session)


def _describe_file(name: str) -> str:
    if not name:
        return "sqlite in memory"
    path = Path(name).resolve()
    return f"sqlite {path} {path.stat().st_ino}"[:500]
