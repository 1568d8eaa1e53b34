"""Encrypted connections, to real servers that refuse any other, by every driver."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from db.connection import DatabaseManager
from db.errors import DatabaseUnavailable
from db.settings import DatabaseSettings
from tests import skips
from tests.servers import Certificate, MariaDBServer, PostgresServer

# asyncpg leaves the socket of a handshake that failed to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")

ENCRYPTED = {
    "postgresql": "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mysql": "SELECT variable_value <> '' FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'",
}
SCHEMES = ["postgresql", "mariadb", "mysql+aiomysql"]


@pytest.fixture(autouse=True)
def left_sockets() -> Iterator[None]:
    """Has them collected while the warnings of this file's tests are not shown."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Certificate:
    return skips.made_or_skipped(
        lambda: Certificate.make(tmp_path_factory.mktemp("tls"), names="IP:127.0.0.1,DNS:db.example"), pytestconfig
    )


@pytest.fixture(scope="module")
def strangers_certificate(tmp_path_factory: pytest.TempPathFactory, certificate: Certificate) -> Certificate:
    return Certificate.make(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def tls_urls(certificate: Certificate, pytestconfig: pytest.Config) -> Iterator[dict[str, str]]:
    """URLs of servers that want TLS, by the scheme."""
    postgres = skips.made_or_skipped(lambda: PostgresServer(certificate=certificate), pytestconfig)
    mariadb = skips.made_or_skipped(lambda: MariaDBServer(certificate=certificate), pytestconfig)
    with postgres, mariadb:
        postgres.execute("CREATE ROLE certified LOGIN")
        mariadb.execute(
            "CREATE USER certified@'127.0.0.1' REQUIRE X509; GRANT SELECT ON mysql.* TO certified@'127.0.0.1'"
        )
        yield urls_of(postgres, mariadb)


@pytest.fixture
def plain_urls(postgres_server: PostgresServer, mariadb_server: MariaDBServer) -> dict[str, str]:
    return urls_of(postgres_server, mariadb_server)


def urls_of(postgres: PostgresServer, mariadb: MariaDBServer) -> dict[str, str]:
    urls = {"postgresql": postgres.url, "mariadb": mariadb.url}
    return {**urls, "mysql+aiomysql": mariadb.url.replace("mariadb://", "mysql+aiomysql://")}


async def is_encrypted(url: str, **told: object) -> bool:
    settings = DatabaseSettings.model_validate({"database_url": url, **told})
    manager = DatabaseManager(settings)
    try:
        await manager.connect()
        query = ENCRYPTED["postgresql" if url.startswith("postgresql") else "mysql"]
        async with manager.reader() as connection:
            return str((await connection.execute(text(query))).scalar_one()) in {"true", "1"}
    finally:
        await manager.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_every_mode_encrypts(tls_urls: dict[str, str], certificate: Certificate, scheme: str, mode: str) -> None:
    assert await is_encrypted(tls_urls[scheme], database_tls=mode, database_tls_ca=certificate.certificate)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_certificate_of_a_stranger_is_refused(
    tls_urls: dict[str, str], strangers_certificate: Certificate, scheme: str
) -> None:
    told = {"database_tls_ca": strangers_certificate.certificate}
    assert await is_encrypted(tls_urls[scheme], database_tls="require", **told)  # this asks for no certificate
    for mode in ("verify-ca", "verify-full"):
        with pytest.raises(DatabaseUnavailable, match=r"(?i)certificate verify failed"):
            await is_encrypted(tls_urls[scheme], database_tls=mode, **told)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_one_of_another_host_is_refused(tls_urls: dict[str, str], certificate: Certificate, scheme: str) -> None:
    """The same server under a name that its certificate does not have."""
    url = tls_urls[scheme].replace("127.0.0.1", "localhost")
    assert await is_encrypted(url, database_tls="verify-ca", database_tls_ca=certificate.certificate)
    with pytest.raises(DatabaseUnavailable, match=r"(?i)hostname mismatch"):
        await is_encrypted(url, database_tls="verify-full", database_tls_ca=certificate.certificate)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_certificate_is_shown_to_a_server_that_asks(
    tls_urls: dict[str, str], certificate: Certificate, scheme: str
) -> None:
    url = tls_urls[scheme].replace("postgres@", "certified@").replace("root@", "certified@")
    told = {"database_tls": "verify-full", "database_tls_ca": certificate.certificate}
    shown = {"database_tls_cert": certificate.certificate, "database_tls_key": certificate.key}
    with pytest.raises(DatabaseUnavailable):
        await is_encrypted(url, **told)
    assert await is_encrypted(url, **told, **shown)


@pytest.mark.parametrize("setting", ["database_tls_ca", "database_tls_cert"])
async def test_a_file_that_holds_no_certificate_is_named(setting: str, tmp_path: Path) -> None:
    for content in (None, "nothing"):
        file = tmp_path / "file.pem"
        if content is not None:
            file.write_text(content)
        with pytest.raises(DatabaseUnavailable, match=rf"{setting.upper()} .*file.pem: no certificate can be read"):
            await is_encrypted("postgresql://db.example/tasks", database_tls="verify-full", **{setting: file})


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("mode", ["require", "verify-full"])
async def test_a_server_without_encryption_is_refused(
    plain_urls: dict[str, str], certificate: Certificate, scheme: str, mode: str
) -> None:
    assert not await is_encrypted(plain_urls[scheme])
    with pytest.raises(DatabaseUnavailable):
        await is_encrypted(plain_urls[scheme], database_tls=mode, database_tls_ca=certificate.certificate)


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_disable_goes_in_the_clear(plain_urls: dict[str, str], tls_urls: dict[str, str], scheme: str) -> None:
    assert not await is_encrypted(plain_urls[scheme], database_tls="disable")
    with pytest.raises(DatabaseUnavailable):
        await is_encrypted(tls_urls[scheme], database_tls="disable")


async def test_sqlite_has_no_network(sqlite_url: str) -> None:
    manager = DatabaseManager(DatabaseSettings(database_url=sqlite_url, database_tls="require", _env_file=None))
    await manager.connect()
    await manager.close()
