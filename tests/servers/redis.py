"""A Redis server of the tests."""

from collections.abc import Sequence
from typing import Literal

import redis

from tests.servers.binaries import REDIS, find_server
from tests.servers.server import Server

ANSWER_TIMEOUT_S = 5.0
# While it starts, who listens on the port may be somebody else, who never answers.
START_TIMEOUT_S = 0.5


class RedisServer(Server):
    """Redis that keeps its data in memory only, unless told otherwise.

    Args:
        appendonly: `"no"`: a restart empties it; `"everysec"` or `"always"`: how often its log is flushed to the disk.
        extra_args: more of the command line, as `["--maxmemory", "10mb"]`.

    Raises:
        MissingBinaryError: when `redis-server` is not on this machine.
    """

    name = "redis"

    def __init__(
        self, *, appendonly: Literal["no", "everysec", "always"] = "no", extra_args: Sequence[str] = ()
    ) -> None:
        self._redis_server = find_server(*REDIS)
        self._appendonly = appendonly
        super().__init__(extra_args)

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        """Removes the keys of all databases and the cached scripts."""
        with self._connect() as client:
            client.flushall()
            client.script_flush()

    def _connect(self, timeout_s: float = ANSWER_TIMEOUT_S) -> "redis.Redis":
        return redis.Redis(host="127.0.0.1", port=self.port, socket_timeout=timeout_s, socket_connect_timeout=timeout_s)

    def _command(self) -> list[str]:
        words = [str(self._redis_server), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        words += ["--save", "", "--appendonly", "no" if self._appendonly == "no" else "yes"]
        if self._appendonly != "no":
            words += ["--appendfsync", self._appendonly]
        return [*words, *self._extra_args]

    def _answers(self) -> bool:
        try:
            with self._connect(START_TIMEOUT_S) as client:
                shown = client.info("server")
        except redis.RedisError:
            return False
        assert isinstance(shown, dict)
        return int(shown["process_id"]) == self._pid
