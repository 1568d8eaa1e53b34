"""Connections to the Redis that holds the queue, with deadlines and typed errors.

redis-py opens the connections (TLS, users, sockets) and reads the replies. Its pool and its commands are not used: they
cost more than half of an enqueue, and repeat by themselves what must not be repeated.
"""

import asyncio
import select
import time
from typing import Any

from redis import exceptions as redis_errors
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from holdfast.address import parse_address
from holdfast.errors import QueueUnavailable
from holdfast.scripts import Script
from holdfast.sentinel import MasterFinder

MAX_CONNECTIONS = 50
"""Calls that are under way at the same time; further ones wait, within their deadline."""

LONGEST_IDLE_S = 180.0
"""Seconds after which an unused connection is not trusted: what stands between forgets it without a word."""

MASTER_KNOWN_S, MASTER_UNKNOWN_S, MASTER_PATIENCE_S = 1.0, 5.0, 0.5
"""Seconds after which sentinels are asked for the master again; after they did not answer; for which they may take."""

REFUSALS = (
    redis_errors.ResponseError,
    redis_errors.AuthenticationError,
    redis_errors.AuthorizationError,
    redis_errors.BusyLoadingError,
)
"""Error replies: Redis has read the command and has not run it."""

Word = str | int | bytes


def pack(*command: Word) -> bytes:
    """Return a command as Redis reads it."""
    parts = [b"*%d\r\n" % len(command)]
    for word in command:
        data = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class Link:
    """One connection; one request at a time."""

    __slots__ = ("_connection", "_poll", "_used_at", "_writer")

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._writer: Any = None
        self._poll: Any = None
        self._used_at = 0.0

    async def open(self) -> None:
        """Connect and sign in."""
        await self._connection.connect()
        self._used_at = time.monotonic()
        self._writer = self._connection._writer  # noqa: SLF001 - redis-py has no cheap way to see a lost connection
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(self._writer.get_extra_info("socket").fileno(), select.POLLIN)

    @property
    def place(self) -> tuple[Any, Any]:
        """Host and port; None for a socket."""
        return getattr(self._connection, "host", None), getattr(self._connection, "port", None)

    @property
    def is_stale(self) -> bool:
        """Whether the connection was lost while nobody used it: there must be nothing to read then."""
        if self._writer.is_closing() or time.monotonic() - self._used_at > LONGEST_IDLE_S:
            return True
        return self._poll is not None and bool(self._poll.poll(0))

    async def send(self, request: bytes) -> None:
        """Send packed commands."""
        await self._connection.send_packed_command(request, check_health=False)

    async def reply(self) -> Any:
        """Read one reply; an error reply is returned and not raised."""
        try:
            return await self._connection.read_response()
        except REFUSALS as refusal:
            return refusal

    async def ask(self, request: bytes, replies: int) -> list[Any]:
        """Send packed commands and read all their replies."""
        await self.send(request)
        answers = [await self.reply() for _ in range(replies)]
        self._used_at = time.monotonic()
        return answers

    async def close(self) -> None:
        """Close without waiting for anybody."""
        await self._connection.disconnect(nowait=True)

    @property
    def is_open(self) -> bool:
        """Whether redis-py has not given it up."""
        return bool(self._connection.is_connected)


class QueueConnection:
    """One queue in one Redis.

    Args:
        redis_url: as ``holdfast.address.parse_address`` takes it.
        queue: the queue's key.
        timeout_s: the deadline of each call, in seconds.
    """

    def __init__(self, redis_url: str, *, queue: str, timeout_s: float) -> None:
        self.queue = queue
        if not timeout_s > 0:
            raise ValueError(f"timeout_s={timeout_s:g}: it must be more than 0 seconds")
        self.timeout_s = timeout_s
        try:
            self._address = parse_address(redis_url)
        except ValueError as error:
            raise ValueError(f"redis_url {error}") from None
        self._finder = MasterFinder(self._address) if self._address.sentinels else None
        self._master: tuple[str, int] | None = None
        self._ask_at = 0.0
        self._options = {
            **self._address.options,
            "protocol": 2,
            "decode_responses": False,
            "socket_timeout": None,  # each call has one deadline, and not one for each of its reads
            # Shorter than the whole call's, so that a connection that never came to be is known for what it is.
            "socket_connect_timeout": timeout_s * 0.9,
            "retry": Retry(NoBackoff(), 0),
        }
        self._idle: list[Link] = []
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._is_closed = False
        self._known_scripts: set[str] = set()

    async def call(self, *command: Word) -> Any:
        """Send one command and return Redis's answer.

        Raises:
            QueueUnavailable: Redis refused or did not answer.
        """
        (answer,) = await self._exchange(pack(*command), 1)
        return _accepted(answer)

    async def pipeline(self, *commands: tuple[Word, ...]) -> list[Any]:
        """Send several commands in one round trip; other clients' commands may come between them.

        Raises:
            QueueUnavailable: Redis refused one of them or did not answer.
        """
        answers = await self._exchange(b"".join(pack(*command) for command in commands), len(commands))
        return [_accepted(answer) for answer in answers]

    async def run(self, script: Script, keys: tuple[str, ...], *arguments: Word) -> Any:
        """Run a script; its text is sent only when Redis does not have it yet.

        Raises:
            QueueUnavailable: Redis refused or did not answer.
        """
        if script.sha in self._known_scripts:
            (answer,) = await self._exchange(pack("EVALSHA", script.sha, len(keys), *keys, *arguments), 1)
            if not isinstance(answer, redis_errors.NoScriptError):
                return _accepted(answer)
        answer = await self.call("EVAL", script.text, len(keys), *keys, *arguments)
        self._known_scripts.add(script.sha)
        return answer

    async def open_link(self) -> Link:
        """Open a connection of the caller's own.

        Raises:
            redis.exceptions.RedisError, OSError, TimeoutError: it did not come to be.
        """
        connection = self._address.connection_class(**self._options, **await self._find_server())
        # No CLIENT SETINFO: it would be a round trip before the first command, and one more for an ACL to allow.
        connection.lib_name = connection.lib_version = connection.driver_info = None
        link = Link(connection)
        try:
            await link.open()
        except BaseException:
            await link.close()
            raise
        return link

    async def _find_server(self) -> dict[str, Any]:
        if self._finder is None:
            return {}
        self._master = host, port = await self._finder.discover_master(self._address.service)
        return {"host": host, "port": port}

    async def follow_master(self) -> None:
        """Ask the sentinels, once a second, whether another server is the master now.

        One that is replaced while it lives is demoted ten seconds later only: what is written there meanwhile is lost.
        """
        now = time.monotonic()
        if self._finder is None or self._master is None or now < self._ask_at:
            return
        self._ask_at = now + MASTER_KNOWN_S
        try:
            async with asyncio.timeout(MASTER_PATIENCE_S):
                self._master = await self._finder.discover_master(self._address.service)
        except (redis_errors.RedisError, OSError, TimeoutError):
            self._ask_at = now + MASTER_UNKNOWN_S  # what is connected goes on

    def leads_to_master(self, link: Link) -> bool:
        """Whether a connection leads to the server that is the master, as far as is known."""
        return self._master is None or link.place == self._master

    async def close(self) -> None:
        """Close the connections; those in use when their call is over."""
        self._is_closed = True
        await self._close_idle()
        await asyncio.sleep(0)  # the transports end in the loop's next round

    async def _close_idle(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _exchange(self, request: bytes, replies: int) -> list[Any]:
        is_sent = False
        try:
            async with asyncio.timeout(self.timeout_s), self._slots:
                link = await self._take_link()
                answered = False
                try:
                    is_sent = True
                    answers = await link.ask(request, replies)
                    is_demoted = any(isinstance(answer, redis_errors.ReadOnlyError) for answer in answers)
                    answered = link.is_open and not self._is_closed and not is_demoted and self.leads_to_master(link)
                    if is_demoted:  # the others lead there as well: new ones are made, to the master of then
                        await self._close_idle()
                finally:
                    if answered:
                        self._idle.append(link)
                    else:
                        await link.close()
                return answers
        except (redis_errors.RedisError, OSError, TimeoutError) as error:
            raise unavailable(error, is_sent=is_sent) from error

    async def _take_link(self) -> Link:
        await self.follow_master()
        while self._idle:
            link = self._idle.pop()
            if not link.is_stale and self.leads_to_master(link):
                return link
            await link.close()
        return await self.open_link()


def unavailable(error: Exception, *, is_sent: bool) -> QueueUnavailable:
    """Return the typed error for one of redis-py's or of the system's; ``is_sent``: Redis may have read the request."""
    if isinstance(error, REFUSALS) or "max number of clients" in str(error):
        return QueueUnavailable(f"Redis refused: {str(error).rstrip('.')}{_advice(error)}", outcome="refused")
    waited_for = "no answer in time" if is_sent else "no answer in time while connecting to it"
    message = f"Redis is out of reach: {str(error) or waited_for}"
    return QueueUnavailable(message, outcome="unknown" if is_sent else "refused")


def _advice(error: Exception) -> str:
    if isinstance(error, redis_errors.AuthenticationError):
        return "; correct the user and the password of the URL"
    if isinstance(error, redis_errors.NoPermissionError):
        return "; give this user the rights of the producer in deploy/redis-users.acl"
    return ""


def _accepted(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise unavailable(answer, is_sent=True) from answer
    return answer
