import io
import tracemalloc

import pytest

from jobs.import_tasks.compression import CHUNK_BYTES
from jobs.import_tasks.file_format import detect_format
from jobs.import_tasks.record_types import FileFormat, Position
from jobs.import_tasks.records import open_records
from jobs.sources import SourceError
from tests.unit.import_files import PACKERS, outcome, plain, read, rows


def test_reading_on_from_a_place_that_the_file_no_longer_has() -> None:
    for compression, pack in PACKERS.items():
        file = io.BytesIO(pack(b"a\n1\n2\n"))
        found = detect_format(file, "x.csv")
        assert found.compression == compression
        assert list(open_records(file, found, Position(6, 4))) == []
        with pytest.raises(SourceError) as caught:
            list(open_records(file, found, Position(7, 4)))
        assert caught.value.code == "source_changed"


def test_a_header_that_changed_since_it_was_looked_at() -> None:
    with pytest.raises(SourceError) as caught:
        list(open_records(io.BytesIO(b"b,a\n1,2\n"), plain("a", "b"), None))
    assert caught.value.code == "source_changed"


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_progress_goes_from_the_start_to_the_size_of_the_file(compression: str) -> None:
    data = PACKERS[compression](b"a\n" + b"".join(b"%d\n" % (n * 7919 % 1_000_003) for n in range(300_000)))
    reader = open_records(io.BytesIO(data), FileFormat("csv", compression, "utf-8", ",", ("a",)), None)  # type: ignore[arg-type]
    seen = [reader.bytes_read for _ in reader]
    assert seen == sorted(seen)
    assert seen[0] < len(data)
    assert reader.bytes_read == len(data)


def test_the_beginning_may_be_given_as_a_position() -> None:
    assert [r.line for r in open_records(io.BytesIO(b"a\n1\n"), plain("a"), Position(0, 1))] == [2]


def test_chunks_that_cut_anywhere_change_nothing() -> None:
    for shift in range(-3, 4):
        filler = b"x" * (CHUNK_BYTES - 5 + shift)
        data = b"a,b\n" + filler + b',"\xc3\xa4\r\n"\r\n1,2\r\n'
        assert rows(data) == [[filler.decode(), "ä\r\n"], ["1", "2"]]


class Endless(io.RawIOBase):
    """A file of many bytes that takes none."""

    def __init__(self, head: bytes, pattern: bytes, size: int) -> None:
        self._head, self._pattern, self._size, self._at = head, pattern, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = self._size if whence == 2 else offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        size = min(size, self._size - self._at)
        data = self._head if self._at == 0 else (self._pattern * (size // len(self._pattern) + 1))[:size]
        self._at += len(data)
        return data


@pytest.mark.parametrize(
    ("pattern", "records"),
    [
        (b"1,2\n" + b"x," + b"y" * 996 + b"\n", 119_000),
        (b"z", 1),
        (b'"' + b"z" * 99_998 + b"\n", 200),
        (b'"\n' + b"z" * 499_998, 100),
    ],
    ids=["rows", "one line", "quotes", "long quotes"],
)
def test_memory_does_not_grow_with_the_file(pattern: bytes, records: int) -> None:
    file = Endless(b"a,b\n", pattern, 60_000_000)
    tracemalloc.start()
    try:
        reader = open_records(file, plain("a", "b"), None)  # type: ignore[arg-type]
        count = sum(1 for _ in reader)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16_000_000
    assert count >= records


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_bomb_takes_no_more_memory_than_any_file(compression: str) -> None:
    bomb = PACKERS[compression](b"a\n" + b"0" * 100_000_000)
    assert len(bomb) < 1_000_000
    tracemalloc.start()
    try:
        (long,) = read(bomb)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert outcome(long) == "line_too_long"
    assert long.end.offset == 100_000_002
    assert peak < 12_000_000
