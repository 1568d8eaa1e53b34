"""Servers of the bench's own, filled databases, and measured processes on them."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from pydantic import SecretStr
from sqlalchemy.engine import make_url

from db import migrate
from db.settings import DatabaseSettings
from tests.processes import CHECKOUT, clean_environment
from tests.servers import MariaDBServer, PostgresServer

MARIADB_ARGUMENTS = ("--innodb-buffer-pool-size=512M", "--innodb-log-file-size=512M")
POSTGRES_ARGUMENTS = ("-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB")
MOST_CLONED = 2_000_000
ROWS_A_STATEMENT = 1_000_000
USERS = "INSERT INTO users (id, username) SELECT gen_random_uuid(), 'user ' || i FROM generate_series(1, 100) i"
FILL_POSTGRES = """
INSERT INTO tasks (id, title, description, status, user_id, completed_at, external_key, created_at, updated_at,
  is_deleted, deleted_at, created_by, metadata_json)
SELECT ('0190' || lpad(to_hex(i), 8, '0') || '70008' || left(md5(i::text), 15))::uuid, 'task ' || i,
  repeat('some words about it, ', 5), 'COMPLETED', u.ids[1 + i % 100], now(), 'key-' || i, now(), now(),
  i % 1000 < {due}, CASE WHEN i % 1000 < {due} THEN now() - interval '200 days' + i * interval '1 second' END,
  'importer', '{{"points": 3, "labels": ["a", "b"]}}'
FROM generate_series({first}, {last}) i, (SELECT array_agg(id) ids FROM users) u
"""
FILL_MARIADB = """
INSERT INTO tasks (id, title, description, status, user_id, completed_at, external_key, created_at, updated_at,
  is_deleted, deleted_at, created_by, metadata_json)
SELECT CONCAT('0190', LPAD(HEX(seq), 8, '0'), '70008', LEFT(MD5(seq), 15)), CONCAT('task ', seq),
  REPEAT('some words about it, ', 5), 'COMPLETED', (SELECT id FROM users LIMIT 1), UTC_TIMESTAMP(6),
  CONCAT('key-', seq), UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), seq % 1000 < {due},
  IF(seq % 1000 < {due}, UTC_TIMESTAMP(6) - INTERVAL 200 DAY + INTERVAL seq SECOND, NULL),
  'importer', '{{"points": 3, "labels": ["a", "b"]}}'
FROM seq_1_to_{rows}
"""


class Arena:
    """PostgreSQL and MariaDB with fsync on, started when they are first asked for; leaving ends them."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._postgres: PostgresServer | None = None
        self._mariadb: MariaDBServer | None = None
        self._filled: dict[tuple[int, int], str] = {}
        self.folder = Path(self._stack.enter_context(TemporaryDirectory(prefix="holdfast-bench-")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def postgres(self) -> PostgresServer:
        """The PostgreSQL server."""
        if self._postgres is None:
            server = PostgresServer(durable=True, extra_args=POSTGRES_ARGUMENTS)
            self._postgres = self._stack.enter_context(server)
        return self._postgres

    @property
    def mariadb(self) -> MariaDBServer:
        """The MariaDB server."""
        if self._mariadb is None:
            server = MariaDBServer(durable=True, extra_args=MARIADB_ARGUMENTS)
            self._mariadb = self._stack.enter_context(server)
        return self._mariadb

    @contextmanager
    def tasks(self, rows: int, due_of_1000: int) -> Iterator[str]:
        """Make a PostgreSQL database with so many tasks, of which some are due; dropped at the end of the block."""
        server = self.postgres
        if rows > MOST_CLONED:  # to copy it takes longer than to fill it
            url = self._fill(rows, due_of_1000)
        else:
            if (rows, due_of_1000) not in self._filled:
                self._filled[rows, due_of_1000] = self._fill(rows, due_of_1000)
            url = server.create_database(template=self._filled[rows, due_of_1000])
        server.execute("CHECKPOINT")
        try:
            yield url
        finally:
            server.drop_database(url)

    def _fill(self, rows: int, due_of_1000: int) -> str:
        server = self.postgres
        url = server.create_database()
        _migrate(url)
        server.execute(USERS, url)
        for done in range(0, rows, ROWS_A_STATEMENT):
            last = min(rows, done + ROWS_A_STATEMENT)
            server.execute(FILL_POSTGRES.format(first=done + 1, last=last, due=due_of_1000), url)
        server.execute("VACUUM ANALYZE tasks", url)
        return url

    @contextmanager
    def mariadb_tasks(self, rows: int, due_of_1000: int) -> Iterator[str]:
        """Make a MariaDB database, as ``tasks``."""
        server = self.mariadb
        url = server.create_database()
        _migrate(url)
        server.execute("INSERT INTO users (id, username) VALUES (UUID(), 'ada')", url)
        server.execute(FILL_MARIADB.format(rows=rows, due=due_of_1000), url)
        server.execute("ANALYZE TABLE tasks", url)
        try:
            yield url
        finally:
            server.drop_database(url)

    def run(self, what: str, url: str, **request: object) -> dict[str, Any]:
        """Run a measured process to its end; returns what it printed."""
        program = [sys.executable, "-m", "bench.archive.child", what, url, json.dumps(request)]
        done = subprocess.run(
            program, env=clean_environment(), cwd=CHECKOUT, stdout=subprocess.PIPE, check=True, text=True
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found

    @contextmanager
    def load(self, url: str) -> Iterator[list[float]]:
        """Let clients work on a database during the block; afterwards the list holds how long each transaction took."""
        taken: list[float] = []
        program = [sys.executable, "-m", "bench.archive.child", "load", url]
        with subprocess.Popen(
            program, env=clean_environment(), cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None  # noqa: S101 - a pipe
            process.stdout.readline()
            try:
                yield taken
            finally:
                out, _ = process.communicate("")
            taken += json.loads(out.splitlines()[-1])["seconds"]

    def pt_archiver(self, url: str, *options: str) -> None:
        """Archive with pt-archiver into a table like ours.

        Raises:
            FileNotFoundError: it is not installed.
        """
        place = make_url(url)
        source = f"h={place.host},P={place.port},D={place.database},u={place.username}"
        where = "is_deleted = 1 AND deleted_at < UTC_TIMESTAMP(6) - INTERVAL 90 DAY"
        program = ["pt-archiver", "--source", f"{source},t=tasks", "--dest", f"{source},t=pt_archive", "--where", where]
        subprocess.run([*program, "--no-check-charset", "--no-version-check", *options], check=True)


def _migrate(url: str) -> None:
    asyncio.run(migrate.upgrade(DatabaseSettings(_env_file=None, database_url=SecretStr(url))))
