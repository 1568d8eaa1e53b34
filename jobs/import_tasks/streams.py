"""The bytes of an import file from any offset on: unpacked and, where lines could not be cut otherwise, as UTF-8."""

import codecs
from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from typing import BinaryIO

from jobs.import_tasks.compression import DamageError, RawFile, read_chunks
from jobs.import_tasks.record_types import Compression
from jobs.import_tasks.text_encoding import KEEP_BYTES, decode_chunks, is_read_directly
from jobs.sources import SourceError, shown


class ByteStream:
    """The bytes of a file, unpacked and in an encoding whose lines end with the byte 0x0A.

    Attributes:
        name: The file's name for messages.
        offset: Where the stream begins, in bytes as `Position` counts them.
    """

    def __init__(self, file: BinaryIO, compression: Compression, encoding: str, offset: int = 0) -> None:
        self.name = source_name(file)
        self._transcoded_from = None if is_read_directly(encoding) else encoding
        self._encoding = "utf-8" if self._transcoded_from or encoding == "utf-8-sig" else encoding
        if compression == "none" and not self._transcoded_from:
            if offset > file.seek(0, 2):
                raise self._changed(offset)
            self._file = RawFile(file, offset)
            chunks = read_chunks(self._file, compression)
        else:
            self._file = RawFile(file)
            chunks = self._skip(self._decode(read_chunks(self._file, compression)), offset)
        if offset == 0 and self._encoding == "utf-8":
            chunks, offset = _without_mark(chunks)
        self._chunks = chunks
        self.offset = offset

    @property
    def bytes_read(self) -> int:
        """How much of the file itself was read, in bytes."""
        return self._file.bytes_read

    def __iter__(self) -> Iterator[bytes]:
        """The chunks, none of them empty.

        Raises:
            DamageError: At the end, if the compressed file is cut off or corrupt.
        """
        return self._chunks

    def decode(self, data: bytes) -> str:
        """A piece of the stream as text; undecodable bytes are kept (`text_encoding.find_kept_byte`)."""
        # Bytes that were kept when transcoding are surrogates already, and only there do they pass.
        return data.decode(self._encoding, "surrogatepass" if self._transcoded_from else KEEP_BYTES)

    def decode_start(self, data: bytes) -> str:
        """As `decode`, without a character that is cut off at the end."""
        errors = "surrogatepass" if self._transcoded_from else KEEP_BYTES
        return codecs.getincrementaldecoder(self._encoding)(errors).decode(data)

    def decode_strictly(self, data: bytes) -> str:
        """A piece of the stream as text; the fast way.

        Raises:
            UnicodeDecodeError: It is not valid in the encoding.
        """
        return data.decode(self._encoding)

    def _decode(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        if not self._transcoded_from:
            return chunks
        texts = decode_chunks(chunks, self._transcoded_from)
        return filter(None, (text.encode("utf-8", "surrogatepass") for text in texts))

    def _skip(self, chunks: Iterator[bytes], offset: int) -> Iterator[bytes]:
        left = offset
        for chunk in chunks:
            if left < len(chunk):
                yield chunk[left:]
            left = max(0, left - len(chunk))
        if left:
            raise self._changed(offset)

    def _changed(self, offset: int) -> SourceError:
        return SourceError(
            "source_changed",
            f"{self.name} ends before byte {offset}, where reading was to go on: a source must not change during"
            " its import; put the old file back or import the new one anew",
        )


class LongLine(bytes):
    """The beginning of a line that is longer than the limit; `size` is its whole length in bytes."""

    size: int


def source_name(file: BinaryIO) -> str:
    """What messages call a file."""
    name = getattr(file, "name", None)
    return f"source '{shown(name)}'" if isinstance(name, str) else "the source"


def cr_line_ends(name: str) -> SourceError:
    """The error for a file whose lines end with a carriage return only."""
    return SourceError(
        "cr_line_ends",
        f"{name} has lines that end with a carriage return only, as old Macs wrote them: lines must end with LF or"
        " CRLF; convert it with: tr '\\r' '\\n' < OLD > NEW",
    )


def split_lines(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """The physical lines of a stream with their ends (the byte 0x0A).

    Args:
        chunks: The stream.
        limit: The longest line in bytes. Of a longer one, one byte more than that is given, as a `LongLine`; only
            within a chunk may a line be longer and yet whole.
    """
    rest = b""
    for chunk in chunks:
        block = rest + chunk
        if len(block) > limit and block.find(b"\n", 0, limit) < 0:
            long, block = _read_long_line(block, chunks, limit)
            yield long
        cut = block.rfind(b"\n") + 1
        yield from BytesIO(block[:cut])
        rest = block[cut:]
    if rest:
        yield rest


def line_size(line: bytes) -> int:
    """The length of a line in the stream, in bytes."""
    return line.size if isinstance(line, LongLine) else len(line)


def _read_long_line(block: bytes, chunks: Iterator[bytes], limit: int) -> tuple[LongLine, bytes]:
    """A line that is too long, and what follows it in the last chunk that was needed."""
    long = LongLine(block[: limit + 1])
    long.size = 0
    while block:
        end = block.find(b"\n") + 1
        long.size += end or len(block)
        if end:
            return long, block[end:]
        block = next(chunks, b"")
    return long, b""


def _without_mark(chunks: Iterator[bytes]) -> tuple[Iterator[bytes], int]:
    """The stream without its byte order mark, and the mark's length; a damage is left for the reading to meet."""
    head = b""
    try:
        while len(head) < len(codecs.BOM_UTF8) and (chunk := next(chunks, b"")):
            head += chunk
    except DamageError as damage:
        chunks = _raise(damage)
    size = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0
    return filter(None, chain((head[size:],), chunks)), size


def _raise(damage: DamageError) -> Iterator[bytes]:
    raise damage
    yield  # a generator, so that it is raised where the stream is read
