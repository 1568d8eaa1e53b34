"""One client's state in fakeredis, with the commands that fakeredis lacks and those an embedded queue refuses."""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import redis.asyncio
from fakeredis import FakeServer
from fakeredis._commands import Signature
from fakeredis._helpers import OK, NoResponse, SimpleError, SimpleString, compile_pattern
from fakeredis._msgs import FLAG_NO_SCRIPT, FLAG_TRANSACTION
from fakeredis.aioredis import AsyncFakeSocket

from worker.embedded.info import REDIS_VERSION, Counters, info_text
from worker.embedded.resp import encode, encode_array

logger = logging.getLogger(__name__)

_NO_ARGUMENTS: Any = ()
_OWN_COMMANDS = {
    "info": Signature("info", "info", _NO_ARGUMENTS, (bytes,)),
    "config get": Signature("config get", "config_get", (bytes,), (bytes,)),
    "quit": Signature("quit", "quit", _NO_ARGUMENTS, (bytes,), flags=FLAG_NO_SCRIPT + FLAG_TRANSACTION),
}
_CONFIG = {b"maxmemory-policy": b"noeviction", b"maxmemory": b"0", b"appendonly": b"no", b"save": b""}
# RESP2 has two nulls; clients of other languages tell them apart.
_NULL_ARRAY_COMMANDS = frozenset(
    b"EXEC BLPOP BRPOP BLMPOP LMPOP BZPOPMIN BZPOPMAX BZMPOP ZMPOP XREAD XREADGROUP".split()
)
_SET_COMMANDS = frozenset(b"SMEMBERS SDIFF SINTER SUNION SPOP".split())
_AUTH_REFUSED = (
    "ERR AUTH called without any password configured: the embedded queue has none, its socket's file mode guards it; "
    "connect without a user name and password"
)
# Users, and functions in a Lua of their own: nothing here needs them.
_REFUSED_PREFIXES = ("acl", "function", "fcall")
# Redis gives its scripts neither the system nor Python, so one that needs them must fail here too. It is no fence
# against hostile scripts: the socket's file mode is.
_CLOSE_LIBRARIES = b"python=nil io=nil os={clock=os.clock} package=nil require=nil dofile=nil loadfile=nil"


class Peer(Protocol):
    """The connection that a client's replies go to."""

    def deliver(self, data: bytes) -> None:
        """Queue bytes for the client."""

    def resume(self) -> None:
        """Go on with the client's requests after a blocking command."""

    def hang_up(self) -> None:
        """Close the connection when what is queued has been sent."""


class _Reply:
    """Marks what answers a request, apart from what is pushed to a subscriber."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class EmbeddedSocket(AsyncFakeSocket):  # type: ignore[misc,unused-ignore]
    """A client of the embedded queue: database, transaction, watches, subscriptions and protocol version.

    fakeredis calls what is behind its socket by names with a leading underscore; the overrides below are the whole of
    what this project knows about them.
    """

    def __init__(self, server: FakeServer, peer: Peer, counters: Counters) -> None:
        self._peer = peer
        self._counters = counters
        self._command = b""
        self._left = False
        super().__init__(server, 0, client_class=redis.asyncio.Redis, client_info={"addr": "unix:0", "name": ""})

    @property
    def is_waiting(self) -> bool:
        """Whether a blocking command holds back this client's further requests."""
        return self._paused

    def execute(self, fields: list[bytes]) -> None:
        """Run one request; its reply goes to the peer, now or when a blocking command is over."""
        self._command = fields[0].upper()
        self._counters.commands += 1
        try:
            self._process_command(fields)
        except Exception:
            logger.exception("the embedded queue could not read a %r request", self._command)
            self.put_response(_Reply(SimpleError("ERR the embedded queue cannot run this request")))

    def leave(self) -> None:
        """Forget the client; one that waits in a blocking command must not take an element that nobody will get."""
        self._left = True
        if not self._blocked:
            self.close()
            return
        self._unblock_reason = b"timeout"
        with self._server.lock:
            self._db.wake_all()

    # What fakeredis calls ---------------------------------------------------------------------------------------

    def put_response(self, msg: Any) -> None:
        """Hand a reply or a pushed message to the peer."""
        if self._left:
            return
        if msg is None or isinstance(msg, _Reply):
            self._peer.deliver(self._encode_reply(None if msg is None else msg.value))
            return
        protocol = self._client_info.protocol_version
        self._peer.deliver(encode_array(msg, protocol, b">" if protocol == 3 else b"*"))

    def resume(self) -> None:
        """Go on after a blocking command."""
        self._paused = False
        if self._left:
            self.close()
        else:
            self._peer.resume()

    def kill(self) -> None:
        """Disconnect on behalf of CLIENT KILL."""
        super().kill()
        self._peer.hang_up()

    def _encode_reply(self, value: Any) -> bytes:
        protocol = self._client_info.protocol_version
        if value is None and protocol == 2 and self._command in _NULL_ARRAY_COMMANDS:
            return b"*-1\r\n"
        if isinstance(value, list) and protocol == 3 and self._command in _SET_COMMANDS:
            return encode_array(value, protocol, b"~")
        return encode(value, protocol)

    def _decode_result(self, result: Any) -> Any:
        return result if isinstance(result, NoResponse) else _Reply(result)

    def _run_command(self, func: Any, sig: Any, args: list[Any], from_script: bool) -> Any:
        try:
            return super()._run_command(func, sig, args, from_script)
        except Exception:
            logger.exception("the embedded queue could not run %s", sig.name)
            return SimpleError(f"ERR the embedded queue cannot run this {sig.name.upper()} request")

    def _blocking(self, timeout: float | None, func: Callable[[bool], Any], shape: Any = None) -> Any:
        def attempt(first_pass: bool) -> Any:
            try:
                return func(first_pass)
            except SimpleError:
                if first_pass:
                    raise
                return None  # A key that has become of another type: the client goes on waiting.

        if self._script_resp is None:
            return super()._blocking(timeout, attempt, shape)
        found = attempt(True)
        return found if shape is None else shape(found)

    def _name_to_func(self, cmd_name: str) -> Any:
        own = _OWN_COMMANDS.get(cmd_name)
        if own is not None:
            return getattr(self, own.func_name), own
        if cmd_name.startswith(_REFUSED_PREFIXES):
            raise SimpleError(f"ERR unknown command '{cmd_name}': the embedded queue does not have it")
        return super()._name_to_func(cmd_name)

    def _get_server_runtime(self, server: FakeServer) -> Any:
        is_new = not hasattr(server, "_lua_runtime")
        runtime = super()._get_server_runtime(server)
        if is_new:
            runtime.execute(_CLOSE_LIBRARIES)
        return runtime

    # Commands ---------------------------------------------------------------------------------------------------

    def info(self, *sections: bytes) -> bytes:
        """INFO [section ...]."""
        return info_text(self._server, self._counters, {name.lower() for name in sections})

    def config_get(self, *patterns: bytes) -> dict[bytes, bytes]:
        """CONFIG GET pattern [pattern ...]."""
        known = {**_CONFIG, **self._server.config}
        matches = [compile_pattern(pattern.lower()).match for pattern in patterns]
        return {name: value for name, value in known.items() if any(match(name.lower()) for match in matches)}

    def quit(self, *_: bytes) -> SimpleString:
        """QUIT."""
        self._peer.hang_up()
        return OK

    def hello(self, *args: bytes) -> dict[str, Any]:
        """HELLO [protover [AUTH user password] [SETNAME name]]."""
        options = list(args[1:])
        if args and args[0] not in {b"2", b"3"}:
            raise SimpleError("NOPROTO unsupported protocol version")
        if options and options[0].upper() == b"AUTH":
            raise SimpleError(_AUTH_REFUSED)
        if options:
            if len(options) != 2 or options[0].upper() != b"SETNAME":
                raise SimpleError("ERR Syntax error in HELLO")
            self.client_setname(options[1])
        if args:
            self._client_info["resp"] = int(args[0])
        return {
            "server": "redis",
            "version": REDIS_VERSION,
            "proto": self._client_info.protocol_version,
            "id": self._client_info["id"],
            "mode": "standalone",
            "role": "master",
            "modules": [],
        }

    def client_setname(self, value: bytes) -> SimpleString:
        """CLIENT SETNAME name."""
        super().client_setname(_client_text(value, "Client names"))
        return OK

    def client_setinfo(self, lib_data: bytes, value: bytes) -> SimpleString:
        """CLIENT SETINFO LIB-NAME|LIB-VER value."""
        super().client_setinfo(lib_data, _client_text(value, "lib-name and lib-ver"))
        return OK

    def _auth(self, *_: bytes) -> SimpleString:
        raise SimpleError(_AUTH_REFUSED)


def _client_text(value: bytes, what: str) -> bytes:
    """CLIENT LIST is made of lines of words, so a name may not break them."""
    if any(byte <= 0x20 or byte >= 0x7F for byte in value):
        raise SimpleError(f"ERR {what} cannot contain spaces, newlines or special characters.")
    return value
