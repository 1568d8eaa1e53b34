"""Compressed files as chunks of plain bytes, in bounded memory, with everything that stands before a damage."""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import zstandard

from jobs.import_tasks.record_types import Compression

CHUNK_BYTES = 256 * 1024
"""The most that a chunk holds, so that a small file that unpacks to a huge one takes no more memory than others."""

_RAW_CHUNK_BYTES = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"  # after a first byte of 0x50 to 0x5f
_GZIP_WINDOW = 31  # zlib's sign for: with a gzip header, checksum verified


class DamageError(Exception):
    """A compressed file ends too early or is corrupt; its text says how."""


class RawFile:
    """A file that counts what was read of it.

    Attributes:
        bytes_read: The position in the file in bytes, for a progress bar.
    """

    def __init__(self, file: BinaryIO, offset: int = 0) -> None:
        self._file = file
        self._file.seek(offset)
        self.bytes_read = offset

    def read(self, size: int) -> bytes:
        """At most `size` bytes; none at the end of the file."""
        data = self._file.read(size)
        self.bytes_read += len(data)
        return data


def detect_compression(head: bytes) -> Compression:
    """The compression that the first bytes (four suffice) of a file tell."""
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    if head.startswith(_ZSTD_MAGIC) or _is_skippable(head):
        return "zstd"
    return "none"


def read_chunks(file: RawFile, compression: Compression) -> Iterator[bytes]:
    """The plain bytes of a file, in chunks of at most `CHUNK_BYTES`, never empty.

    Raises:
        DamageError: After the last byte that could be unpacked, if the file is cut off or corrupt.
    """
    readers = {"none": _read_plain, "gzip": _read_gzip, "zstd": _read_zstd}
    return filter(None, readers[compression](file))


def _read_plain(file: RawFile) -> Iterator[bytes]:
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _read_gzip(file: RawFile) -> Iterator[bytes]:
    inflater = None
    while data := file.read(_RAW_CHUNK_BYTES):
        while data:
            if inflater is None:
                data = data.lstrip(b"\0")  # members may be padded with zeros, as on tapes
                if not data:
                    break
                inflater = zlib.decompressobj(_GZIP_WINDOW)
            yield from _inflate(inflater, data)
            data = inflater.unused_data
            if inflater.eof:
                inflater = None
    if inflater is not None:
        with suppress(zlib.error):
            yield inflater.flush()
        raise DamageError("the gzip data is cut off")


def _inflate(inflater: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    while data and not inflater.eof:
        before = inflater.copy()  # zlib drops what it unpacked in the call in which it meets an error
        try:
            chunk = inflater.decompress(data, CHUNK_BYTES)
        except zlib.error as error:
            yield _salvage(before, data)
            raise DamageError(f"the gzip data is corrupt ({error})") from error
        yield chunk
        data = inflater.unconsumed_tail


def _salvage(inflater: "zlib._Decompress", data: bytes) -> bytes:
    chunks: list[bytes] = []
    with suppress(zlib.error):
        chunks.extend(inflater.decompress(data[at : at + 1]) for at in range(len(data)))
    return b"".join(chunks)


def _is_skippable(head: bytes) -> bool:
    return head[1:4] == _ZSTD_SKIPPABLE and 0x50 <= head[0] <= 0x5F


def _read_zstd(file: RawFile) -> Iterator[bytes]:
    unpacker = zstandard.ZstdDecompressor()
    while magic := file.read(4):
        if _is_skippable(magic):
            _skip(file, int.from_bytes(_exactly(file, 4), "little"))
        elif magic == _ZSTD_MAGIC:
            yield from _unpack_frame(file, unpacker.decompressobj())
        elif _ZSTD_MAGIC.startswith(magic):
            raise DamageError("the zstd data is cut off")
        else:
            raise DamageError("the zstd data is followed by bytes that are not zstd")


def _unpack_frame(file: RawFile, frame: "zstandard.ZstdDecompressionObj") -> Iterator[bytes]:
    """Unpack one frame, block by block.

    The library takes a whole input at once and gives all its output, however large, or in an error none. A block
    gives at most 128 KiB, so handing over one at a time bounds the memory and loses nothing before a damage.
    """
    try:
        for piece in _split_frame(file):
            yield frame.decompress(piece)
    except zstandard.ZstdError as error:
        raise DamageError(f"the zstd data is corrupt ({error})") from error
    if not frame.eof:
        raise DamageError("the zstd data is corrupt (a frame does not end)")


def _split_frame(file: RawFile) -> Iterator[bytes]:
    """The header, the blocks and the checksum of a frame (RFC 8878, section 3.1.1) whose magic was read."""
    descriptor = _exactly(file, 1)
    flags = descriptor[0]
    single_segment = flags >> 5 & 1
    size_bytes = (single_segment, 2, 4, 8)[flags >> 6]
    dictionary_bytes = (0, 1, 2, 4)[flags & 3]
    yield _ZSTD_MAGIC + descriptor + _exactly(file, (1 - single_segment) + dictionary_bytes + size_bytes)
    last = 0
    while not last:
        header = _exactly(file, 3)
        fields = int.from_bytes(header, "little")
        last, run_of_one_byte, size = fields & 1, (fields >> 1 & 3) == 1, fields >> 3
        yield header + _exactly(file, 1 if run_of_one_byte else size)
    if flags >> 2 & 1:
        yield _exactly(file, 4)


def _exactly(file: RawFile, size: int) -> bytes:
    parts = []
    while size and (part := file.read(size)):
        parts.append(part)
        size -= len(part)
    if size:
        raise DamageError("the zstd data is cut off")
    return b"".join(parts)


def _skip(file: RawFile, size: int) -> None:
    while size:
        size -= len(_exactly(file, min(size, _RAW_CHUNK_BYTES)))
