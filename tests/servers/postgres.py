"""A PostgreSQL server of the tests."""

import secrets
import signal
import subprocess
from collections.abc import Sequence
from typing import ClassVar
from urllib.parse import urlsplit

from tests.servers.binaries import POSTGRES, find_server, find_tool
from tests.servers.certificate import Certificate
from tests.servers.server import READY_TIMEOUT_S, Server, ServerError


class PostgresServer(Server):
    """PostgreSQL; the superuser `postgres` signs in without a password.

    Args:
        durable: keep fsync on. Without it a killed server loses nothing, only a machine without power would.
        certificate: it offers TLS, and refuses who comes without. The user `certified` has to show this very one.
        extra_args: more of the command line, as `["-c", "timezone=Asia/Kolkata"]`.

    Raises:
        MissingBinaryError: when `postgres`, `initdb` or `psql` is not on this machine.
    """

    name = "postgres"
    accounts: ClassVar[tuple[str, ...]] = ("postgres", "nobody")
    stop_signal = signal.SIGINT  # "fast": sessions are ended, not waited for

    def __init__(
        self, *, durable: bool = False, certificate: Certificate | None = None, extra_args: Sequence[str] = ()
    ) -> None:
        self._postgres = find_server(*POSTGRES)
        self._initdb = find_tool(self._postgres, "initdb")
        self._psql = find_tool(self._postgres, "psql")
        self._durable = durable
        super().__init__(extra_args)
        self._data = self.folder / "data"
        self._certificate = certificate and certificate.copied_to(self.folder, self._account)

    @property
    def url(self) -> str:
        """The URL of the database `postgres`."""
        return self._url_of("postgres")

    def create_database(self, template: str | None = None) -> str:
        """Makes a database with a name of its own; returns its URL.

        Args:
            template: name or URL of a database to clone; nobody may be connected to it.
        """
        name = f"test_{secrets.token_hex(6)}"
        clone = f' TEMPLATE "{database_name(template)}"' if template else ""
        self.execute(f'CREATE DATABASE "{name}"{clone}')
        return self._url_of(name)

    def drop_database(self, url: str) -> None:
        """Drops a database if it is there, and ends the sessions that still use it."""
        self.execute(f'DROP DATABASE IF EXISTS "{database_name(url)}" WITH (FORCE)')

    def execute(self, statement: str, url: str | None = None) -> str:
        """Runs one SQL statement; returns its rows as text, one a line, columns separated by `|`.

        Args:
            statement: SQL.
            url: the database; `postgres` when not given.

        Raises:
            ServerError: when the server refuses it.
        """
        result = self._run_psql(statement, url or self.url)
        if result.returncode != 0:
            raise ServerError(f"{statement!r} failed: {result.stderr.strip()}")
        return result.stdout.rstrip("\n")

    def _run_psql(self, statement: str, url: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(self._psql),
            "--no-psqlrc",
            "--quiet",
            "--no-align",
            "--tuples-only",
            "--command",
            statement,
            url,
        ]
        environment = self._environment()
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=READY_TIMEOUT_S, check=False
        )

    def _preparation(self) -> list[list[str]]:
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        return [[str(self._initdb), f"--pgdata={self._data}", *options]]

    def _command(self) -> list[str]:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        if not self._durable:
            settings |= {"fsync": "off", "full_page_writes": "off"}
        if self._certificate:
            access = self.folder / "hba"
            certified = "hostssl all certified 127.0.0.1/32 trust clientcert=verify-ca"
            access.write_text(f"{certified}\nhostssl all all 127.0.0.1/32 trust\n")
            own = self._certificate.certificate
            files = {"cert": own, "key": self._certificate.key, "ca": own}
            settings |= {"ssl": "on", "hba_file": str(access)} | {
                f"ssl_{kind}_file": str(at) for kind, at in files.items()
            }
        options = [word for setting, value in settings.items() for word in ("-c", f"{setting}={value}")]
        return [str(self._postgres), "-D", str(self._data), *options, *self._extra_args]

    def _answers(self) -> bool:
        shown = self._run_psql("SHOW data_directory", self.url)
        return shown.stdout.strip() == str(self._data)

    def _url_of(self, database: str) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"


def database_name(url: str) -> str:
    """Returns the database's name of a URL; a plain name is returned as it is."""
    return urlsplit(url).path.lstrip("/")
