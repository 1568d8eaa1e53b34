"""A Redis server of the tests, and a sentinel that watches over one."""

from collections.abc import Sequence
from typing import Any, Literal

import redis

from tests.servers.binaries import REDIS, find_server
from tests.servers.certificate import Certificate
from tests.servers.server import READY_TIMEOUT_S, Server, wait_until

ANSWER_TIMEOUT_S = 5.0
# While it starts, who listens on the port may be somebody else, who never answers.
START_TIMEOUT_S = 0.5
SERVICE = "mymaster"
DOWN_AFTER_MS = 500
FAILOVER_TIMEOUT_MS = 2000


class RedisServer(Server):
    """Redis that keeps its data in memory only, unless told otherwise.

    Args:
        appendonly: `"no"`: a restart empties it; `"everysec"` or `"always"`: how often its log is flushed to the disk.
        password: of the user `default`, and of the master it may be told to follow.
        certificate: it speaks TLS only, to its replicas and its master, too.
        extra_args: more of the command line, as `["--maxmemory", "10mb"]`.

    Raises:
        MissingBinaryError: when `redis-server` is not on this machine.
    """

    name = "redis"

    def __init__(
        self,
        *,
        appendonly: Literal["no", "everysec", "always"] = "no",
        password: str = "",
        certificate: Certificate | None = None,
        extra_args: Sequence[str] = (),
    ) -> None:
        self._redis_server = find_server(*REDIS)
        self._appendonly = appendonly
        self.password = password
        self.certificate = certificate
        super().__init__(extra_args)

    @property
    def url(self) -> str:
        """The URL of database 0."""
        user = f":{self.password}@" if self.password else ""
        if self.certificate is None:
            return f"redis://{user}127.0.0.1:{self.port}/0"
        return f"rediss://{user}127.0.0.1:{self.port}/0?ssl_ca_certs={self.certificate.certificate}"

    def flush(self) -> None:
        """Removes the keys of all databases and the cached scripts."""
        with self.connect() as client:
            client.flushall()
            client.script_flush()

    def connect(self, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Returns a client, untyped: redis-py types each answer as perhaps an awaitable."""
        return redis.Redis.from_url(self.url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)

    def _command(self) -> list[str]:
        words = [str(self._redis_server), *listening(self.port, self.certificate), "--dir", str(self.folder)]
        words += ["--save", "", "--appendonly", "no" if self._appendonly == "no" else "yes"]
        words += ["--repl-diskless-sync-delay", "0"]  # it would wait 5 s for more replicas to come
        if self._appendonly != "no":
            words += ["--appendfsync", self._appendonly]
        if self.password:
            words += ["--requirepass", self.password, "--masterauth", self.password]
        return [*words, *self._extra_args]

    def _answers(self) -> bool:
        return is_process(self.connect, self._pid)


class SentinelServer(Server):
    """A sentinel that decides alone; it fails over half a second after its master is gone.

    Args:
        master: runs already.
        password: of the sentinel itself.
    """

    name = "sentinel"

    def __init__(self, master: RedisServer, *, password: str = "") -> None:
        self._redis_server = find_server(*REDIS)
        self._master = master
        self._password = password
        super().__init__()

    @property
    def url(self) -> str:
        """The URL for clients of the master."""
        user = f":{self._master.password}@" if self._master.password else ""
        certificate = self._master.certificate
        scheme, tls = ("rediss", f"&ssl_ca_certs={certificate.certificate}") if certificate else ("redis", "")
        own = f"&sentinel_password={self._password}" if self._password else ""
        return f"{scheme}+sentinel://{user}127.0.0.1:{self.port}/0?service={SERVICE}{own}{tls}"

    def connect(self, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Returns a client for the sentinel itself."""
        timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
        certificate = self._master.certificate
        tls = {"ssl": True, "ssl_ca_certs": str(certificate.certificate)} if certificate else {}
        return redis.Redis(port=self.port, password=self._password or None, **timeouts, **tls)  # type: ignore[arg-type]

    def master_port(self) -> int:
        """Returns the port of the server that is the master now."""
        with self.connect() as client:
            return int(client.sentinel_get_master_addr_by_name(SERVICE)[1])

    def fail_over(self) -> None:
        """Makes a replica the master, and returns when it is; the old one becomes a replica."""
        old = self.master_port()
        with self.connect() as client:
            assert wait_until(lambda: _is_accepted(client, "SENTINEL", "FAILOVER", SERVICE), READY_TIMEOUT_S)
        assert wait_until(lambda: self.master_port() != old, READY_TIMEOUT_S)
        if old == self._master.port:  # until it knows, it takes writes that it loses as it turns to the new one
            with self._master.connect() as client:
                assert wait_until(lambda: client.info("replication")["role"] == "slave", READY_TIMEOUT_S)

    def _command(self) -> list[str]:
        settings = {
            "monitor": f"{SERVICE} 127.0.0.1 {self._master.port} 1",
            "down-after-milliseconds": f"{SERVICE} {DOWN_AFTER_MS}",
            "failover-timeout": f"{SERVICE} {FAILOVER_TIMEOUT_MS}",
        }
        if self._master.password:
            settings["auth-pass"] = f"{SERVICE} {self._master.password}"
        # It writes what it learns into this file.
        file = self.folder / "sentinel.conf"
        file.write_text("".join(f"sentinel {name} {value}\n" for name, value in settings.items()))
        words = [str(self._redis_server), str(file), "--sentinel", *listening(self.port, self._master.certificate)]
        words += ["--dir", str(self.folder)]
        return words + (["--requirepass", self._password] if self._password else [])

    def _answers(self) -> bool:
        return is_process(self.connect, self._pid)


def _is_accepted(client: Any, *command: str) -> bool:
    try:
        client.execute_command(*command)
    except redis.ResponseError:  # it has not looked at the replica yet
        return False
    return True


def listening(port: int, certificate: Certificate | None) -> list[str]:
    """Returns the words of the command line that say where a server listens."""
    if certificate is None:
        return ["--port", str(port), "--bind", "127.0.0.1"]
    files = {"cert": certificate.certificate, "key": certificate.key, "ca-cert": certificate.certificate}
    words = [word for name, file in files.items() for word in (f"--tls-{name}-file", str(file))]
    words += ["--tls-auth-clients", "no", "--tls-replication", "yes", "--bind", "127.0.0.1"]
    return ["--port", "0", "--tls-port", str(port), *words]


def is_process(connect: Any, pid: int) -> bool:
    """Whether who answers is this very process, and not another on its port."""
    try:
        with connect(START_TIMEOUT_S) as client:
            return int(client.info("server")["process_id"]) == pid
    except redis.RedisError:
        return False
