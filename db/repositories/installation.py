"""Which server this ledger lives on: a copy that was started elsewhere is held until it is adopted.

A ledger is known by two things. What its server says of itself tells a dump that was restored elsewhere; the addresses
under which workers were told to find it (``DATABASE_URL``) tell a physical copy that is started beside the original.
Neither changes with a restart, a new container, a new IP address or a failover behind the same name: holding back the
ledger's own server would be an outage.

- PostgreSQL says its system identifier and the database's name, MySQL its ``server_uuid`` and the database's name.
- MariaDB has no lasting identity (``server_uid`` is made of its network card, which a new container changes): the
  database's name and the address are all there is. A copy that is reached under both is taken for the original.
- SQLite: the file's inode, with its path as the address. One of the two is enough: a file that was moved is known, and
  so is one that was restored in its place; a copy elsewhere has neither.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import URL, Dialect, Select, insert, literal, literal_column, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db.models import Installation
from db.past_orm import execute_past_orm
from db.types import utc_now
from db.urls import is_in_memory
from holdfast.outbox import job_runs, job_runs_history, uuid7

ONLY_ROW = 1
NEVER_A_COPY = datetime(1970, 1, 1, tzinfo=UTC)
"""When a ledger was adopted that had no owner before: it has inherited nothing."""
SERVERS = {
    "postgresql": "(SELECT 'postgresql ' || system_identifier FROM pg_control_system()) || ' ' || current_database()",
    "mysql": "CONCAT_WS(' ', 'mysql', @@server_uuid, DATABASE())",
    "mariadb": "CONCAT_WS(' ', 'mariadb', DATABASE())",
    "sqlite": "(SELECT file FROM pragma_database_list WHERE name = 'main')",
}
PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}
THIS_MACHINE = frozenset({"", "localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Sight:
    """The ledger's owner, and where it stands now."""

    owner: str | None
    """The server that it belongs to; None: nobody has adopted it yet."""
    addresses: Sequence[str]
    """Under which its workers find it."""
    server: str
    address: str

    @property
    def is_held(self) -> bool:
        """Whether this is a copy of the ledger that nobody has adopted."""
        if self.owner is None:
            return False
        if self.server.startswith("sqlite"):
            return self.owner != self.server and self.address not in self.addresses
        return self.owner != self.server or self.address not in self.addresses

    @property
    def is_settled(self) -> bool:
        """Whether its row says where it stands."""
        return self.owner == self.server and self.address in self.addresses


async def look(reader: AsyncConnection | AsyncSession) -> Sight:
    """Read whose ledger it is, and where it stands."""
    engine = _bind(reader)
    row = (await execute_past_orm(reader, _looks[_engine_name(engine.dialect)], {})).one()
    owner = row.owner or None
    server, address = _place_of(engine.url, row.server)
    return Sight(owner, tuple(row.addresses or ()), server, address)


async def adopt(session: AsyncSession) -> Installation:
    """Say that the ledger belongs where it stands; another address of its server is added to those that are known.

    Returns:
        The row.
    """
    row = (await session.execute(select(Installation).with_for_update())).scalar_one_or_none()
    sight = await look(session)
    goes_on = sight.owner is not None and (sight.owner == sight.server or not sight.is_held)
    addresses = [*dict.fromkeys([*(sight.addresses if goes_on else ()), sight.address])]
    adopted_at = NEVER_A_COPY if sight.owner is None else utc_now()
    values: dict[str, Any] = {"server": sight.server, "addresses": addresses, "adopted_at": adopted_at}
    if row is None:
        await session.execute(insert(Installation).values(id=ONLY_ROW, installation_id=uuid7(), **values))
    else:
        await session.execute(update(Installation).where(Installation.id == ONLY_ROW).values(values))
    query = select(Installation).execution_options(populate_existing=True)
    return (await session.execute(query)).scalar_one()


async def settle(session: AsyncSession) -> Sight:
    """Adopt a ledger that belongs to nobody, and follow an SQLite file that was moved, or replaced in its place.

    Returns:
        Whose it is now: of several workers that begin at once, the first one adopts it.
    """
    with suppress(IntegrityError):
        async with session.begin_nested():
            await session.execute(select(Installation.id).with_for_update())
            if not (await look(session)).is_held:
                await adopt(session)
    return await look(session)


async def without_inherited(session: AsyncSession, fences: Mapping[UUID, int]) -> dict[UUID, int]:
    """Leave out the runs that were enqueued before this ledger was adopted from another owner.

    They may be another database's as well, of which this one is a copy, and which has gone on with them.

    Args:
        session: where to look.
        fences: something of each run, by its id.
    """
    adopted_at = select(Installation.adopted_at).where(Installation.id == ONLY_ROW).scalar_subquery()
    inherited = set[UUID]()
    for table in (job_runs, job_runs_history):
        query = select(table.c.id).where(table.c.id.in_(list(fences)), table.c.enqueued_at <= adopted_at)
        inherited.update(await session.scalars(query))
    return {run_id: fence for run_id, fence in fences.items() if run_id not in inherited}


def configured_address(url: URL) -> str:
    """Return where a server is, as it was configured: the names are not looked up, for what they lead to changes."""
    port = url.port or PORTS[url.get_backend_name()]
    listed = url.query.get("host", ())
    hosts = [listed] if isinstance(listed, str) else [*listed]
    return ",".join(_normal(host, port) for host in ([url.host or ""] if url.host or not hosts else hosts))


def _normal(host: str, port: int) -> str:
    name, separator, own_port = host.rpartition(":") if host.count(":") == 1 else (host, "", "")
    name = name.lower().rstrip(".")
    is_here = name in THIS_MACHINE or name.startswith("/")  # a socket's folder
    return f"{'localhost' if is_here else name}:{own_port if separator else port}"


def _place_of(url: URL, told: str) -> tuple[str, str]:
    if url.get_backend_name() != "sqlite":
        return told, configured_address(url)
    if is_in_memory(url) or not told:
        return "sqlite in memory", "memory"
    path = Path(told).resolve()
    return f"sqlite {path.stat().st_ino}", str(path)


def _bind(reader: AsyncConnection | AsyncSession) -> Any:
    return reader.get_bind().engine if isinstance(reader, AsyncSession) else reader.engine


def _engine_name(dialect: Dialect) -> str:
    is_mariadb = bool(getattr(dialect, "is_mariadb", False))  # also behind mysql://
    return "mariadb" if is_mariadb else dialect.name


def _look_of(server: str) -> Select[Any]:
    table = Installation.__table__.c
    one = select(literal(1).label("one")).subquery()
    query = select(literal_column(server).label("server"), table.server.label("owner"), table.addresses)
    return query.select_from(one.outerjoin(Installation.__table__, table.id == ONLY_ROW))


_looks = {name: _look_of(server) for name, server in SERVERS.items()}
