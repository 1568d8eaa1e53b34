"""arq's settings from a Redis URL: what redis-py reads from it, arq gets."""

from pathlib import Path

import pytest
from arq.connections import RedisSettings
from redis import asyncio as redis_asyncio

from holdfast.address import parse_address
from worker import redis_url
from worker.settings import Settings


def arq_settings(url: str) -> RedisSettings:
    return redis_url.arq_settings(parse_address(url))


def test_user_and_password_are_decoded() -> None:
    settings = arq_settings("redis://ada%40home:a%2Fb%25@db.example:7000/3")
    assert (settings.host, settings.port, settings.database) == ("db.example", 7000, 3)
    assert (settings.username, settings.password, settings.ssl) == ("ada@home", "a/b%", False)


@pytest.mark.parametrize("url", ["redis://db.example", "redis://db.example/", "redis://db.example:6379/0"])
def test_the_first_database_is_the_default(url: str) -> None:
    settings = arq_settings(url)
    assert (settings.host, settings.port, settings.database) == ("db.example", 6379, 0)


def test_a_data_folder_with_a_space_has_a_queue(tmp_path: Path) -> None:
    folder = tmp_path / "my data"
    settings = Settings(holdfast_data_dir=folder, redis_url=None, _env_file=None)
    assert arq_settings(settings.redis_address).unix_socket_path == str(folder / "queue.sock")


def test_a_socket_with_a_database_and_a_password() -> None:
    settings = arq_settings("unix://ada:a%2Fb@/run/redis.sock?db=2")
    assert (settings.unix_socket_path, settings.database) == ("/run/redis.sock", 2)
    assert (settings.username, settings.password) == ("ada", "a/b")


def test_the_options_of_tls_are_kept() -> None:
    query = "ssl_cert_reqs=none&ssl_ca_certs=/etc/ca.pem&ssl_check_hostname=true&ssl_keyfile=/k&ssl_certfile=/c"
    settings = arq_settings(f"rediss://db.example?{query}&max_connections=7&socket_connect_timeout=3")
    assert (settings.ssl, settings.ssl_cert_reqs, settings.ssl_ca_certs) == (True, "none", "/etc/ca.pem")
    assert (settings.ssl_check_hostname, settings.ssl_keyfile, settings.ssl_certfile) == (True, "/k", "/c")
    assert (settings.max_connections, settings.conn_timeout) == (7, 3)


@pytest.mark.parametrize(
    "url",
    ["redis://h?socket_timeout=5&max_connections=3&health_check_interval=9&db=1", "rediss://h?ssl_cert_reqs=none"],
)
def test_options_that_redis_py_knows_are_readable(url: str) -> None:
    address = parse_address(url)
    redis_asyncio.ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]
    assert address.is_tls == url.startswith("rediss")


@pytest.mark.parametrize(
    "url", ["redis://h?socket_timeout=abc", "redis://h?db=x", "redis://h?password_of=x", "rediss://h?ssl_cert_reqs=x"]
)
def test_others_are_not(url: str) -> None:
    with pytest.raises(ValueError, match="has an option behind its"):
        parse_address(url)


@pytest.mark.parametrize("url", ["redis://h/abc", "rediss://h/0/1", "redis://h/-1", "redis+sentinel://h:26379/main"])
def test_a_database_is_a_number(url: str) -> None:
    """redis-py takes the first database, in silence."""
    with pytest.raises(ValueError, match="names a database that is no number"):
        parse_address(url)


@pytest.mark.parametrize("url", ["redis://h:99999/0", "redis://:a/b@h:1"])
def test_a_port_is_a_number_of_a_port(url: str) -> None:
    with pytest.raises(ValueError, match="no port from 0 to 65535 behind the host"):
        parse_address(url)


@pytest.mark.parametrize(
    ("query", "checked"),
    [
        ("", True),
        ("?ssl_cert_reqs=required", True),
        ("?ssl_check_hostname=false", False),
        ("?ssl_cert_reqs=none", False),
    ],
)
def test_a_certificate_is_of_the_host_unless_that_is_not_wanted(query: str, checked: bool) -> None:
    assert parse_address(f"rediss://h{query}").options["ssl_check_hostname"] is checked
    assert arq_settings(f"rediss://h{query}").ssl_check_hostname is checked


def test_sentinels_with_everything() -> None:
    query = "service=a%2Fb&sentinel_username=guard&sentinel_password=s%40&ssl_ca_certs=/ca.pem&socket_connect_timeout=3"
    address = parse_address(f"rediss+sentinel://ada:p%2F%40@one:1,[::1]:2,three/4?{query}")
    assert address.sentinels == (("one", 1), ("::1", 2), ("three", 26379))
    assert (address.service, address.is_tls) == ("a/b", True)
    assert address.options == {
        "username": "ada",
        "password": "p/@",
        "db": 4,
        "ssl_ca_certs": "/ca.pem",
        "ssl_check_hostname": True,
        "socket_connect_timeout": 3.0,
    }
    sentinel = {
        "username": "guard",
        "password": "s@",
        "ssl": True,
        "ssl_ca_certs": "/ca.pem",
        "ssl_check_hostname": True,
    }
    assert sentinel.items() <= address.sentinel_options.items()
    assert "p/@" not in repr(address)
    assert "s@" not in repr(address)


def test_sentinels_with_nothing() -> None:
    address = parse_address("redis+sentinel://one")
    assert (address.sentinels, address.service, address.is_tls) == ((("one", 26379),), "mymaster", False)
    assert dict(address.options) == {}
    assert not {"ssl", "password", "username"} & address.sentinel_options.keys()


@pytest.mark.parametrize("hosts", ["", "one,,two", "one:x", "ada:canary:7@"])
def test_sentinels_that_are_none(hosts: str) -> None:
    with pytest.raises(ValueError, match="names a sentinel that is no host:port") as caught:
        parse_address(f"redis+sentinel://{hosts}/0")
    assert "canary" not in str(caught.value)
