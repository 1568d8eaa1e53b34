"""arq's settings from a Redis URL: what redis-py reads from it, arq gets."""

from pathlib import Path

import pytest
from redis import asyncio as redis_asyncio

from worker.redis_url import arq_settings, has_readable_options
from worker.settings import Settings


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
    assert has_readable_options(url)
    redis_asyncio.ConnectionPool.from_url(url).make_connection()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    "url", ["redis://h?socket_timeout=abc", "redis://h?db=x", "redis://h?password_of=x", "rediss://h?ssl_cert_reqs=x"]
)
def test_others_are_not(url: str) -> None:
    assert not has_readable_options(url)
