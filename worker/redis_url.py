"""Redis URLs: arq's settings from one, read as redis-py reads it.

arq's own ``RedisSettings.from_dsn`` takes user, password and path without decoding them and drops the query.
"""

from dataclasses import fields
from typing import Any

from arq.connections import RedisSettings
from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import RedisError

_ARQ_NAMES = {"path": "unix_socket_path", "db": "database", "socket_connect_timeout": "conn_timeout"}
_POOL_OPTIONS = ("max_connections",)
_ARQ_FIELDS = frozenset(field.name for field in fields(RedisSettings))


def arq_settings(url: str) -> RedisSettings:
    """Return arq's settings for a URL; of its query what arq has a setting for, TLS and timeouts of connecting.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py takes it.

    Raises:
        ValueError: redis-py cannot read it.
    """
    parsed: dict[str, Any] = dict(parse_url(url))
    parsed.pop("connection_class", None)
    named = {_ARQ_NAMES.get(name, name): value for name, value in parsed.items()}
    known = {name: value for name, value in named.items() if name in _ARQ_FIELDS}
    return RedisSettings(**known, ssl=url.startswith("rediss:"))


def has_readable_options(url: str) -> bool:
    """Whether redis-py could open a connection with the query of a URL; nothing is connected."""
    try:
        parsed: dict[str, Any] = dict(parse_url(url))
        make_connection = parsed.pop("connection_class", Connection)
        make_connection(**{name: value for name, value in parsed.items() if name not in _POOL_OPTIONS})
    except (TypeError, ValueError, RedisError):
        return False
    return True
