"""Servers that the tests start for themselves; nothing of the machine's own servers is touched."""

from tests.servers.binaries import MissingBinaryError
from tests.servers.certificate import Certificate
from tests.servers.mariadb import MariaDBServer
from tests.servers.pgbouncer import PgBouncerServer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer, SentinelServer
from tests.servers.server import Server, ServerError, free_port, wait_until

__all__ = [
    "Certificate",
    "MariaDBServer",
    "MissingBinaryError",
    "PgBouncerServer",
    "PostgresServer",
    "RedisServer",
    "SentinelServer",
    "Server",
    "ServerError",
    "free_port",
    "wait_until",
]
