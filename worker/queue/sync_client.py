"""A synchronous client that reaches what an asynchronous connection pool reaches, for the thread that renews leases."""

from typing import Any

import redis
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.sentinel import Sentinel

CONNECT_TIMEOUT_S = 2.0
NAMES = frozenset(
    {
        "host",
        "port",
        "db",
        "username",
        "password",
        "ssl_keyfile",
        "ssl_certfile",
        "ssl_cert_reqs",
        "ssl_ca_certs",
        "ssl_ca_data",
        "ssl_ca_path",
        "ssl_check_hostname",
    }
)
"""The arguments of a connection that decide where it leads, and as whom."""


def sync_client(pool: Any, timeout_s: float) -> "redis.Redis":
    """Return a client; nothing is connected yet.

    Args:
        pool: arq's.
        timeout_s: for each answer, in seconds.
    """
    given = pool.connection_kwargs
    options = {name: given[name] for name in NAMES if given.get(name) is not None}
    options |= {"socket_timeout": timeout_s, "socket_connect_timeout": CONNECT_TIMEOUT_S}
    if "SSL" in pool.connection_class.__name__:
        options["ssl"] = True
    if isinstance(pool, SentinelConnectionPool):
        return _of_the_master(pool, options)
    if "path" in given:
        options = {name: value for name, value in options.items() if name not in {"host", "port"}}
        options["unix_socket_path"] = given["path"]
    return redis.Redis(**options)


def _of_the_master(pool: Any, options: dict[str, Any]) -> "redis.Redis":
    manager = pool.sentinel_manager
    known = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    sentinels = [(each["host"], each["port"]) for each in known]
    timeouts = {"socket_timeout": CONNECT_TIMEOUT_S, "socket_connect_timeout": CONNECT_TIMEOUT_S}
    finder: Any = Sentinel(sentinels, sentinel_kwargs={**timeouts, **manager.sentinel_kwargs})  # type: ignore[no-untyped-call]
    client: redis.Redis = finder.master_for(pool.service_name, **options)
    return client
