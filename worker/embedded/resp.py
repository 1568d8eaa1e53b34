"""The Redis protocol: requests off the wire, replies onto it (RESP2 and RESP3)."""

from collections.abc import Callable
from typing import Any

from fakeredis._helpers import SimpleError, SimpleString

MAX_FIELDS = 1024 * 1024
MAX_BULK_BYTES = 64 * 1024 * 1024
MAX_REQUEST_BYTES = 128 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024

_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\t"


class ProtocolError(Exception):
    """What came in is not a Redis request; the connection cannot be read any further."""


class RequestParser:
    """Cuts a stream of bytes into requests, each a list of fields: the command and its arguments."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._fields: list[bytes] = []
        self._missing = 0
        self._length = -1
        self._taken_bytes = 0

    def feed(self, data: bytes) -> None:
        """Add what was read.

        Raises:
            ProtocolError: more is waiting than one request may hold.
        """
        if self._at:
            del self._buffer[: self._at]
            self._at = 0
        self._buffer += data
        if len(self._buffer) + self._taken_bytes > MAX_REQUEST_BYTES:
            raise ProtocolError("too big request")

    def next_request(self) -> list[bytes] | None:
        """Return the next whole request, or None until more has been fed.

        Raises:
            ProtocolError: the input is no request, or one of its limits is passed.
        """
        while not self._missing:
            line = self._take_line()
            if line is None:
                return None
            if line[:1] == b"*":
                self._missing = max(0, _number(line, MAX_FIELDS, "multibulk"))
            elif line.strip():
                return _inline(line)
        if not self._take_fields():
            return None
        fields, self._fields, self._taken_bytes = self._fields, [], 0
        return fields

    def _take_fields(self) -> bool:
        buffer = self._buffer
        while self._missing:
            if self._length < 0 and not self._take_length():
                return False
            end = self._at + self._length
            if len(buffer) < end + 2:
                return False
            if buffer[end : end + 2] != b"\r\n":
                raise ProtocolError("a bulk string does not end with CRLF")
            self._fields.append(bytes(buffer[self._at : end]))
            self._taken_bytes += self._length
            self._at, self._length = end + 2, -1
            self._missing -= 1
        return True

    def _take_length(self) -> bool:
        line = self._take_line()
        if line is None:
            return False
        if line[:1] != b"$":
            raise ProtocolError(f"expected '$', got {line[:1]!r}")
        self._length = _number(line, MAX_BULK_BYTES, "bulk")
        if self._length < 0:
            raise ProtocolError("invalid bulk length")
        return True

    def _take_line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._at, self._at + MAX_LINE_BYTES)
        if end < 0:
            if len(self._buffer) - self._at >= MAX_LINE_BYTES:
                raise ProtocolError("too big inline request")
            return None
        line = bytes(self._buffer[self._at : end])
        self._at = end + 1
        return line.removesuffix(b"\r")


def _number(line: bytes, limit: int, what: str) -> int:
    digits = line[1:]
    if digits == b"-1":
        return -1
    if not digits.isdigit() or len(digits) > 12 or int(digits) > limit:
        raise ProtocolError(f"invalid {what} length")
    return int(digits)


def _inline(line: bytes) -> list[bytes]:
    """A request as typed by hand: words, no quotes."""
    if line.translate(None, _PRINTABLE):
        raise ProtocolError("neither an array of bulk strings nor a line of text")
    return line.split()


def encode(value: Any, protocol: int) -> bytes:
    """Write a reply of fakeredis, already shaped for `protocol` (2 or 3), as bytes for the wire.

    Raises:
        TypeError: the value has no form on the wire.
    """
    writer = _WRITERS.get(type(value))
    if writer is None:
        writer = next((write for kind, write in _WRITERS.items() if isinstance(value, kind)), None)
    if writer is None:
        raise TypeError(f"{type(value).__name__} has no form on the wire")
    return writer(value, protocol)


def encode_array(items: list[Any] | tuple[Any, ...], protocol: int, kind: bytes = b"*") -> bytes:
    """Write an array (`*`), a set (`~`) or a push (`>`) of `items`."""
    return b"%b%d\r\n" % (kind, len(items)) + b"".join([encode(item, protocol) for item in items])


def _bulk(value: bytes, _: int) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def _null(_: None, protocol: int) -> bytes:
    return b"_\r\n" if protocol == 3 else b"$-1\r\n"


def _boolean(value: bool, protocol: int) -> bytes:
    return (b"#t\r\n" if value else b"#f\r\n") if protocol == 3 else b":%d\r\n" % value


def _double(value: float, protocol: int) -> bytes:
    number = b"%.17g" % value
    return b",%b\r\n" % number if protocol == 3 else _bulk(number, protocol)


def _map(value: dict[Any, Any], protocol: int) -> bytes:
    pairs = [item for pair in value.items() for item in pair]
    flat = encode_array(pairs, protocol)
    return flat if protocol == 2 else b"%%%d%b" % (len(value), flat[flat.index(b"\r\n") :])


def _one_line(text: bytes) -> bytes:
    return text.replace(b"\r", b" ").replace(b"\n", b" ")


_WRITERS: dict[type, Callable[[Any, int], bytes]] = {
    bytes: _bulk,
    bool: _boolean,
    int: lambda value, _: b":%d\r\n" % value,
    type(None): _null,
    list: encode_array,
    tuple: encode_array,
    SimpleString: lambda value, _: b"+%b\r\n" % _one_line(value.value),
    SimpleError: lambda value, _: b"-%b\r\n" % _one_line(value.value.encode("utf-8", "backslashreplace")),
    float: _double,
    str: lambda value, protocol: _bulk(value.encode("utf-8", "backslashreplace"), protocol),
    dict: _map,
    set: lambda value, protocol: encode_array(list(value), protocol, b"~" if protocol == 3 else b"*"),
}
