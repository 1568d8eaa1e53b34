"""Which encoding a file is in, and what becomes of bytes that are not valid in it."""

import codecs
import re
from collections.abc import Iterator
from functools import lru_cache

from charset_normalizer import from_bytes

from jobs.sources import SourceError, shown

KEEP_BYTES = "holdfast-keep-bytes"
"""A decoding error handler: each bad byte becomes the surrogate U+DC00 + byte, which no valid text holds."""

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark its own begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Python's codecs for single strings; and UTF-7, whose decoder buffers without bound.
_NOT_FOR_FILES = {"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape", "utf-7"}
_FEWEST_BYTES_TO_GUESS_FROM = 16
# Without this list short texts are taken for code pages that nobody has used for decades.
_GUESSES = [
    "cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "iso8859_2", "iso8859_15",
    "koi8_r", "cp437", "cp850", "mac_roman", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr",
]  # fmt: skip
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_KEPT_BYTE = re.compile("[\udc00-\udcff]")


def _keep_bytes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(KEEP_BYTES, _keep_bytes)


def resolve_encoding(name: str) -> str:
    """Python's own name of a text encoding.

    Raises:
        SourceError: `unknown_encoding`, if Python does not know it or it is not an encoding of files.
    """
    try:
        "".encode(name)  # refuses what is a codec but turns no text into bytes, such as base64
        info = codecs.lookup(name)
    except (LookupError, ValueError):
        info = None
    if info is None or info.incrementaldecoder is None or info.name.replace("_", "-") in _NOT_FOR_FILES:
        raise SourceError(
            "unknown_encoding",
            f"encoding '{shown(name)}' is not a text encoding that Python reads files in;"
            " use its name there, such as utf-8, cp1252 or utf-16",
        )
    return info.name


def detect_encoding(sample: bytes) -> str:
    """The encoding of the text that a file begins with.

    A byte order mark decides. Otherwise it is UTF-8, unless the sample holds enough bytes beyond ASCII and none of
    them forms a UTF-8 sequence: a file that is UTF-8 but for some bad rows stays UTF-8, and those rows are rejected.

    Args:
        sample: The first bytes; the last character may be cut.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if sample.startswith(mark):
            return encoding
    high = len(sample) - len(sample.translate(None, bytes(range(0x80, 0x100))))
    if high < _FEWEST_BYTES_TO_GUESS_FROM or _UTF8_SEQUENCE.search(sample):
        return "utf-8"
    best = from_bytes(sample, cp_isolation=_GUESSES).best()
    return resolve_encoding(best.encoding) if best else "utf-8"


@lru_cache(maxsize=32)
def is_read_directly(encoding: str) -> bool:
    """Whether lines can be cut from the bytes as they are: UTF-8, or one byte a character with ASCII at its place."""
    if encoding in ("utf-8", "utf-8-sig"):
        return True
    # The incremental decoder waits where a byte is the first of several.
    return all(_is_one_character(encoding, byte) for byte in range(256))


def _is_one_character(encoding: str, byte: int) -> bool:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(bytes([byte]))
    except UnicodeDecodeError:
        return byte >= 0x80
    return text == chr(byte) if byte < 0x80 else len(text) == 1


def decode_chunks(chunks: Iterator[bytes], encoding: str) -> Iterator[str]:
    """The text of a stream of bytes; undecodable bytes are kept (`KEEP_BYTES`).

    Raises:
        SourceError: `invalid_encoding`, if there is no way to begin: UTF-16 or UTF-32 in an unknown byte order.
    """
    decoder = codecs.getincrementaldecoder(encoding)(KEEP_BYTES)
    try:
        for chunk in chunks:
            yield decoder.decode(chunk)
        yield decoder.decode(b"", True)
    except UnicodeError as error:
        raise SourceError(
            "invalid_encoding",
            f"the file does not begin with the byte order mark that encoding {encoding} needs;"
            f" give {encoding}-le or {encoding}-be with --encoding, or the encoding that it is really in",
        ) from error


def find_kept_byte(text: str) -> tuple[int, int] | None:
    """The index and the value of the first undecodable byte in text that was decoded with `KEEP_BYTES`."""
    match = _KEPT_BYTE.search(text)
    return (match.start(), ord(match[0]) - 0xDC00) if match else None


def show_kept_bytes(text: str) -> str:
    r"""Text with its undecodable bytes written as `\xNN`, so that it is plain text again."""
    return _KEPT_BYTE.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)
