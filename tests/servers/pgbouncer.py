"""A PgBouncer of the tests, in transaction mode."""

from typing import ClassVar
from urllib.parse import urlsplit

from tests.servers.binaries import PGBOUNCER, find_server
from tests.servers.postgres import PostgresServer, database_name
from tests.servers.server import Server, ServerError


class PgBouncerServer(Server):
    """PgBouncer before a PostgreSQL server: every transaction gets whichever of its few server connections is free.

    It has the defaults of its package, so it refuses startup parameters that it does not know.

    Args:
        server: runs already.
        pool_size: connections to the server for each database.

    Raises:
        MissingBinaryError: when `pgbouncer` is not on this machine.
    """

    name = "pgbouncer"
    accounts: ClassVar[tuple[str, ...]] = ("postgres", "nobody")

    def __init__(self, server: PostgresServer, *, pool_size: int = 2) -> None:
        self._pgbouncer = find_server(*PGBOUNCER)
        self._server = server
        self._pool_size = pool_size
        super().__init__()

    @property
    def url(self) -> str:
        """The URL of its own console."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/pgbouncer"

    def url_of(self, url: str) -> str:
        """Returns the URL through it of one of the server's databases."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database_name(url)}"

    def _command(self) -> list[str]:
        settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "any",
            "admin_users": "postgres",
            "pool_mode": "transaction",
            "default_pool_size": str(self._pool_size),
            "max_client_conn": "200",
        }
        upstream = f"* = host=127.0.0.1 port={urlsplit(self._server.url).port} user=postgres"
        lines = ["[databases]", upstream, "[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items())]
        file = self.folder / "pgbouncer.ini"
        file.write_text("\n".join(lines) + "\n")
        return [str(self._pgbouncer), str(file)]

    def _answers(self) -> bool:
        try:
            return bool(self._server.execute("SELECT 1", self.url_of(self._server.url)))
        except ServerError:
            return False
