"""Sessions as the server sees them."""

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from tests.servers import MariaDBServer, PostgresServer

OWN_ID = {
    "postgresql": "SELECT pg_backend_pid()",
    "mysql": "SELECT connection_id()",
    "mariadb": "SELECT connection_id()",
}


async def own_id(session: AsyncSession | AsyncConnection) -> int:
    """The server's number of the session."""
    bind = session.get_bind() if isinstance(session, AsyncSession) else session
    return int((await session.execute(text(OWN_ID[bind.dialect.name]))).scalar_one())


async def own_id_by_driver(session: AsyncSession) -> int:
    """As ``own_id``, without a statement, which would be the transaction's first."""
    driver: Any = (await (await session.connection()).get_raw_connection()).driver_connection
    return int(driver.get_server_pid() if hasattr(driver, "get_server_pid") else driver.thread_id())


def end(server: PostgresServer | MariaDBServer, session_id: int) -> None:
    """End a session from outside. Nothing of this process runs meanwhile: its client cannot have noticed."""
    if isinstance(server, PostgresServer):
        assert server.execute(f"SELECT pg_terminate_backend({session_id}, 10000)") == "t"
    else:
        server.execute(f"KILL {session_id}")


def running(server: PostgresServer | MariaDBServer, marker: str) -> int:
    """How many sessions are executing a statement with the marker in it."""
    if isinstance(server, PostgresServer):
        query = f"FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%{marker}%' AND pid <> pg_backend_pid()"
    else:
        query = f"FROM information_schema.processlist WHERE info LIKE '%{marker}%' AND id <> connection_id()"
    return int(server.execute(f"SELECT count(*) {query}"))
