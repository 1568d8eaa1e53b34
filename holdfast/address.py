"""Redis URLs: a server, a socket, or the sentinels that know which server is the master."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from redis.asyncio.connection import Connection, parse_url
from redis.exceptions import RedisError

SENTINEL_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}
"""With sentinels: the scheme of the servers that they name, and of themselves."""
SCHEMES = ("redis", "rediss", "unix", *SENTINEL_SCHEMES)
SENTINEL_PORT = 26379
DEFAULT_SERVICE = "mymaster"
SENTINEL_TIMEOUT_S = 1.0
"""A sentinel that does not answer in time must leave time to ask the next one."""
_ESCAPED = "and write special characters of the password as %2F and the like"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where Redis is. Passwords are in the options only, which are not shown."""

    connection_class: type[Any] = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)
    """Arguments of redis-py's connection; without host and port where sentinels are asked for them."""
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    """The name under which the sentinels know the master."""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Arguments of redis-py's client for a sentinel."""
    max_connections: int | None = None
    """Of a pool."""

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted."""
        return "SSL" in self.connection_class.__name__


def parse_address(url: str) -> RedisAddress:
    """Read a URL as redis-py does.

    Args:
        url: ``redis://``, ``rediss://`` (TLS), ``unix://``, or
            ``redis+sentinel://[user:password@]host[:26379],host2[:26379]/0?service=mymaster`` (``rediss+sentinel://``:
            servers and sentinels by TLS). User and password are the servers'; ``sentinel_username`` and
            ``sentinel_password`` behind the ``?`` those of the sentinels.

    Raises:
        ValueError: it cannot be read. The text never appears in the message because it may hold a password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is not a Redis URL") from None
    if parts.scheme not in SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES[:-1])
        raise ValueError(f"must begin with {known} or {SCHEMES[-1]}://, as redis://localhost:6379/0")
    if parts.scheme not in SENTINEL_SCHEMES and not _has_readable_port(parts):
        raise ValueError(f"has no port from 0 to 65535 behind the host: correct it, {_ESCAPED}")
    if parts.scheme != "unix" and re.fullmatch(r"/?\d*/?", parts.path) is None:  # redis-py would take the first one
        raise ValueError(f"names a database that is no number: write it as redis://localhost:6379/0, {_ESCAPED}")
    if parts.scheme in SENTINEL_SCHEMES:
        return _with_sentinels(parts)
    connection_class, options = _parse(url)
    limit = options.pop("max_connections", None)
    return RedisAddress(connection_class, MappingProxyType(options), max_connections=limit)


def shown(url: str) -> str:
    """Return a URL without user, password and options, but with the sentinels' name for the master."""
    parts = urlsplit(url)
    if parts.scheme not in SENTINEL_SCHEMES:
        place = f"{parts.hostname or ''}:{parts.port or 6379}" if parts.scheme != "unix" else ""
        return f"{parts.scheme}://{place}{parts.path}"
    address = _with_sentinels(parts)
    places = ",".join(f"{host}:{port}" for host, port in address.sentinels)
    return f"{parts.scheme}://{places}{parts.path}?service={address.service}"


def _with_sentinels(parts: SplitResult) -> RedisAddress:
    user, at, hosts = parts.netloc.rpartition("@")
    sentinels = tuple(_sentinel(host) for host in hosts.split(","))
    query = dict(parse_qsl(parts.query))
    service = query.pop("service", DEFAULT_SERVICE)
    login = {name: query.pop(f"sentinel_{name}", None) for name in ("username", "password")}
    server = SplitResult(SENTINEL_SCHEMES[parts.scheme], f"{user}{at}server", parts.path, urlencode(query), "")
    connection_class, options = _parse(server.geturl())
    del options["host"]
    limit = options.pop("max_connections", None)
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    sentinel_options = {
        **{name: value for name, value in login.items() if value},
        **(tls | {"ssl": True} if parts.scheme == "rediss+sentinel" else {}),
        "socket_timeout": SENTINEL_TIMEOUT_S,
        "socket_connect_timeout": SENTINEL_TIMEOUT_S,
    }
    return RedisAddress(
        connection_class, MappingProxyType(options), sentinels, service, MappingProxyType(sentinel_options), limit
    )


def _sentinel(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not _has_readable_port(parts) or not parts.hostname:
        raise ValueError(
            "names a sentinel that is no host:port: write redis+sentinel://host:26379,host2:26379/0?service=mymaster, "
            f"{_ESCAPED}"
        )
    return parts.hostname, parts.port or SENTINEL_PORT


def _parse(url: str) -> tuple[type[Any], dict[str, Any]]:
    """Return redis-py's class and arguments of a connection, and of a pool of them; nothing is connected."""
    try:
        options: dict[str, Any] = dict(parse_url(url))
        connection_class = options.pop("connection_class", Connection)
        connection_class(**{name: value for name, value in options.items() if name != "max_connections"})
    except (TypeError, ValueError, RedisError):
        raise ValueError(
            "has an option behind its ? that redis-py does not know or cannot read: write it as ?socket_timeout=5"
        ) from None
    if "SSL" in connection_class.__name__:
        # As redis-py 6 does: a certificate for another host is no proof.
        options.setdefault("ssl_check_hostname", options.get("ssl_cert_reqs", "required") != "none")
    return connection_class, options


def _has_readable_port(parts: SplitResult) -> bool:
    try:
        parts.port  # noqa: B018 - the property raises
    except ValueError:
        return False
    return True
