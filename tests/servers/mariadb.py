"""A MariaDB server of the tests."""

import secrets
import subprocess
from collections.abc import Sequence
from typing import ClassVar

from tests.servers.binaries import MARIADB, find_server, find_tool
from tests.servers.certificate import Certificate
from tests.servers.postgres import database_name
from tests.servers.server import READY_TIMEOUT_S, Server, ServerError


class MariaDBServer(Server):
    """MariaDB with utf8mb4; the user `root` signs in from 127.0.0.1 without a password.

    Args:
        durable: flush to the disk at each commit. Without it a killed server loses nothing, only a machine without
            power would.
        certificate: it offers TLS, and refuses who comes without; it is also what clients may be asked to show.
        extra_args: more of the command line, as `["--default-time-zone=+05:30"]`.

    Raises:
        MissingBinaryError: when the server, its installer or its clients are not on this machine.
    """

    name = "mariadb"
    accounts: ClassVar[tuple[str, ...]] = ("mysql", "nobody")

    def __init__(
        self, *, durable: bool = False, certificate: Certificate | None = None, extra_args: Sequence[str] = ()
    ) -> None:
        self._mariadbd = find_server(*MARIADB)
        self._installer = find_tool(self._mariadbd, "mariadb-install-db", "mysql_install_db")
        self._client = find_tool(self._mariadbd, "mariadb", "mysql")
        self._dump = find_tool(self._mariadbd, "mariadb-dump", "mysqldump")
        self._durable = durable
        super().__init__(extra_args)
        self._data = self.folder / "data"
        self._socket = self.folder / "s"
        self._certificate = certificate and certificate.copied_to(self.folder, self._account)

    @property
    def url(self) -> str:
        """The URL of the database `mysql`, which holds the server's own tables."""
        return self._url_of("mysql")

    def create_database(self, template: str | None = None) -> str:
        """Makes a database with a name of its own; returns its URL.

        Args:
            template: name or URL of a database to clone.
        """
        name = f"test_{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE `{name}`")
        if template:
            source = database_name(template)
            dump = self._run([str(self._dump), *self._login(), "--routines", "--triggers", "--skip-comments", source])
            self._run([str(self._client), *self._login(), name], script=dump)
        return self._url_of(name)

    def drop_database(self, url: str) -> None:
        """Drops a database if it is there, and ends the sessions that still use it: their locks would hold it up."""
        name = database_name(url)
        sessions = self.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'").splitlines()
        kills = "".join(f"KILL {session}; " for session in sessions)
        # --force: a session that has gone in the meantime is no reason to stop ("Unknown thread id").
        self._run([str(self._client), *self._login(), "--force"], script=f"{kills}DROP DATABASE IF EXISTS `{name}`;")

    def execute(self, statement: str, url: str | None = None) -> str:
        """Runs SQL statements, separated by `;`; returns the rows as text, one a line, columns separated by tabs.

        Args:
            statement: SQL.
            url: the database; `mysql` when not given.

        Raises:
            ServerError: when the server refuses it.
        """
        options = [*self._login(), "--batch", "--skip-column-names"]
        return self._run([str(self._client), *options, database_name(url or "mysql")], script=statement).rstrip("\n")

    def _login(self) -> list[str]:
        # The socket lies in our own folder: whoever answers there is this server.
        charset = "--default-character-set=utf8mb4"
        return ["--no-defaults", "--protocol=socket", f"--socket={self._socket}", "--user=root", charset]

    def _run(self, command: list[str], *, script: str = "") -> str:
        result = subprocess.run(
            command,
            input=script.encode(),
            env=self._environment(),
            capture_output=True,
            timeout=READY_TIMEOUT_S,
            check=False,
        )
        errors = result.stderr.decode(errors="replace").strip()
        if result.returncode != 0 and not all("Unknown thread id" in line for line in errors.splitlines()):
            raise ServerError(f"{script[:200] or command!r} failed: {errors}")
        return result.stdout.decode()

    def _preparation(self) -> list[list[str]]:
        options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        return [[str(self._installer), "--no-defaults", f"--datadir={self._data}", *options]]

    def _command(self) -> list[str]:
        options = [
            f"--datadir={self._data}",
            f"--socket={self._socket}",
            f"--pid-file={self.folder / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--max-connections=200",
            "--character-set-server=utf8mb4",
            "--innodb-buffer-pool-size=64M",
        ]
        if not self._durable:
            # 2, not 0: each commit reaches the kernel, so that a killed server has it after the restart.
            options += ["--innodb-flush-log-at-trx-commit=2", "--innodb-doublewrite=OFF", "--sync-frm=OFF"]
        if self._certificate:
            own = self._certificate.certificate
            options += [f"--ssl-cert={own}", f"--ssl-key={self._certificate.key}", f"--ssl-ca={own}"]
            options += ["--require-secure-transport=ON"]
        return [str(self._mariadbd), "--no-defaults", *options, *self._extra_args]

    def _answers(self) -> bool:
        if not self._socket.exists():
            return False
        try:
            return self.execute("SELECT 1") == "1"
        except ServerError:
            return False

    def _url_of(self, database: str) -> str:
        return f"mariadb://root@127.0.0.1:{self.port}/{database}"
