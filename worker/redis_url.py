"""From a Redis URL to what arq and the commands connect with.

arq's own ``RedisSettings.from_dsn`` takes user, password and path without decoding them and drops the query, and its
pool with sentinels knows no certificates and no password for the sentinels.
"""

from dataclasses import fields
from typing import Any

from arq.connections import ArqRedis, RedisSettings
from redis import asyncio as redis_asyncio
from redis.asyncio.sentinel import SentinelConnectionPool

from holdfast import wire
from holdfast.address import RedisAddress, parse_address
from holdfast.sentinel import MasterFinder

CONNECT_TIMEOUT_S = 2.0
_ARQ_NAMES = {"path": "unix_socket_path", "db": "database", "socket_connect_timeout": "conn_timeout"}
_ARQ_FIELDS = frozenset(field.name for field in fields(RedisSettings))


def arq_connection(url: str, queue: str) -> dict[str, Any]:
    """Return the arguments of arq's ``Worker`` by which it reaches Redis.

    Args:
        url: as ``holdfast.address.parse_address`` takes it.
        queue: the key of the worker's first queue.

    Raises:
        ValueError: the URL cannot be read.
    """
    address = parse_address(url)
    if not address.sentinels:
        return {"redis_settings": arq_settings(address)}
    pool = _sentinel_pool(address, encoding="utf8")
    redis = ArqRedis(pool, job_serializer=wire.dumps, job_deserializer=wire.read_job, default_queue_name=queue)
    return {"redis_pool": redis}


def arq_settings(address: RedisAddress) -> RedisSettings:
    """Return arq's settings for a server; of its options those for which arq has one: TLS, time to connect."""
    named = {_ARQ_NAMES.get(name, name): value for name, value in address.options.items()}
    known = {name: value for name, value in named.items() if name in _ARQ_FIELDS}
    return RedisSettings(**known, ssl=address.is_tls, max_connections=address.max_connections)


def make_client(url: str, *, timeout_s: float) -> redis_asyncio.Redis:
    """Return a client for a few calls; nothing is connected yet.

    Args:
        url: as ``holdfast.address.parse_address`` takes it.
        timeout_s: for connecting and for each answer, in seconds.
    """
    address = parse_address(url)
    timeouts = {"socket_connect_timeout": timeout_s, "socket_timeout": timeout_s}
    if address.sentinels:
        return redis_asyncio.Redis.from_pool(_sentinel_pool(address, **timeouts))
    options = {**address.options, **timeouts}
    return redis_asyncio.Redis.from_pool(
        redis_asyncio.ConnectionPool(connection_class=address.connection_class, **options)
    )


def _sentinel_pool(address: RedisAddress, **more: Any) -> SentinelConnectionPool:
    options = {"socket_connect_timeout": CONNECT_TIMEOUT_S, **address.options, **more, "ssl": address.is_tls}
    if address.max_connections is not None:
        options["max_connections"] = address.max_connections
    return SentinelConnectionPool(address.service, MasterFinder(address), **options)  # type: ignore[no-untyped-call]
