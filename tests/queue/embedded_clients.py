"""How the tests talk to the embedded queue: with redis-py, and byte by byte."""

import socket
from pathlib import Path
from typing import Any

import redis


def connect(path: Path, **options: Any) -> Any:
    """Return a redis-py client, untyped: redis-py types each answer of a blocking client as perhaps an awaitable."""
    return redis.Redis(unix_socket_path=str(path), socket_timeout=30, **options)


def wait_until_blocked(client: Any, count: int) -> None:
    """Wait for `count` clients in a blocking command; each turn is a round trip, so there is nothing to sleep for."""
    while client.info("clients")["blocked_clients"] != count:
        pass


class Wire:
    """A connection that speaks bytes."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def line(self) -> bytes:
        return self._file.readline()

    def rest(self) -> bytes:
        return self._file.read()

    def close(self) -> None:
        self._file.close()
        self._socket.close()
