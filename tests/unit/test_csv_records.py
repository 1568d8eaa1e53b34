import csv
import gzip
import io
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import zstandard
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from jobs.import_tasks.compression import CHUNK_BYTES
from jobs.import_tasks.csv_records import CsvRecords
from jobs.import_tasks.file_format import detect_format
from jobs.import_tasks.record_types import RAW_PREFIX_BYTES, RECORD_LIMIT_BYTES, FileFormat, Position, Record
from jobs.import_tasks.records import open_records
from jobs.sources import SourceError

PACKERS: dict[str, Callable[[bytes], bytes]] = {"none": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}


def plain(*columns: str, delimiter: str = ",", encoding: str = "utf-8") -> FileFormat:
    return FileFormat("csv", "none", encoding, delimiter, columns)


def read(data: bytes, *, encoding: str | None = None, delimiter: str | None = None) -> list[Record]:
    file = io.BytesIO(data)
    found = detect_format(file, "tasks.csv", encoding=encoding, delimiter=delimiter)
    records = list(open_records(file, found, None))
    for record in records:
        assert (record.values is None) != (record.problem is None)
        record.raw.encode()
    return records


def rows(data: bytes) -> list[list[str]]:
    """The values of a file without bad rows."""
    return [list(record.values.values()) for record in read(data) if record.values is not None]


def outcome(record: Record) -> str | dict[str, str]:
    return record.problem.code if record.problem else record.values or {}


def read_until_failure(data: bytes) -> tuple[list[Record], SourceError]:
    file = io.BytesIO(data)
    reader = open_records(file, detect_format(file, "tasks.csv"), None)
    records: list[Record] = []
    with pytest.raises(SourceError) as caught:
        records.extend(reader)
    with pytest.raises(SourceError):
        next(reader)
    return records, caught.value


# What a good file gives


def test_records_tell_their_lines_raw_text_values_and_end() -> None:
    first, second, third = read(b'key,title\r\n1,one\r\n\r\n2,"two\r\n""2"" "\r\n3,three')
    assert first == Record(2, "1,one", {"key": "1", "title": "one"}, None, Position(18, 3))
    assert second == Record(4, '2,"two\r\n""2"" "', {"key": "2", "title": 'two\r\n"2" '}, None, Position(38, 6))
    assert third == Record(6, "3,three", {"key": "3", "title": "three"}, None, Position(45, 7))


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n  1 ,\t2 \n",
        'a,b\n"1\r\n2","x\ry"\n',
        'a,b\r\n"",""\r\n,\r\n',
        'a,b\n1"2,3""\n',
        'a,b\n" 1 ",\u20282\u2029\x0b\x0c\x1c\x85\n',
        'a,b\n1,2\n3,"4\n"\n\n\n5,6',
        "a,b\n\ufeff1,2\n",
        "a,b\r\n1,2\r\r\n",
    ],
)
def test_values_are_those_of_pythons_csv_module(text: str) -> None:
    expected = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    assert rows(text.encode()) == expected[1:]


def test_blank_lines_are_no_records() -> None:
    assert rows(b"\n\na,b\n\n\r\n1,2\n\n") == [["1", "2"]]
    assert rows(b"a\n\n\n") == []
    assert rows(b'a\n""\n') == [[""]]


def test_of_columns_with_one_name_the_last_wins() -> None:
    assert read(b"a,b,a\n1,2,3\n")[0].values == {"a": "3", "b": "2"}


def test_the_file_may_have_only_its_header() -> None:
    assert read(b"a,b") == []


def test_a_header_of_several_lines_is_skipped_whole() -> None:
    assert read(b'"a\nb",c\n1,2\n')[0] == Record(3, "1,2", {"a\nb": "1", "c": "2"}, None, Position(12, 4))


# What a bad row costs: itself


@pytest.mark.parametrize(
    ("row", "code", "reason"),
    [
        (b"1", "too_few_fields", "1 fields, the header has 2"),
        (b"1,2,3,4", "too_many_fields", "4 fields, the header has 2"),
        (b" ", "too_few_fields", "1 fields"),
        (b'1,"2"x', "malformed_csv", "line 3 is not CSV"),
        (b"1,2\r3", "malformed_csv", "line 3 is not CSV"),
        (b"1,2\0", "nul_character", "character 4"),
        (b'1,"\n\0"', "nul_character", "NUL"),
        (b"1,caf\xe9", "invalid_encoding", "byte 0xe9 (character 6 of the record) is not valid utf-8"),
        (b"1,\xed\xa0\x80", "invalid_encoding", "byte 0xed"),
        (b"1," + b"x" * RECORD_LIMIT_BYTES, "line_too_long", "1,048,579 bytes"),
        (b'1,"' + b"x\n" * RECORD_LIMIT_BYTES, "malformed_csv", "within 1,048,576 bytes"),
    ],
    ids=lambda value: value[:20] if isinstance(value, bytes) else "",
)
def test_a_bad_row_is_rejected_and_its_neighbours_are_read(row: bytes, code: str, reason: str) -> None:
    before, bad, *_, after = read(b"key,title\nbefore,0\n" + row + b"\nafter,9\n")
    assert before.values == {"key": "before", "title": "0"}
    assert bad.problem is not None
    assert bad.problem.code == code
    assert reason in bad.problem.reason
    assert bad.problem.reason.isprintable()
    assert bad.line == 3
    assert after.values == {"key": "after", "title": "9"}


def test_the_column_of_a_bad_character_is_named() -> None:
    nul, byte = read(b"key,title\n1,\0\n2,\xff\n")
    assert nul.problem is not None
    assert byte.problem is not None
    assert (nul.problem.column, byte.problem.column) == ("title", "title")
    assert "--encoding" in byte.problem.reason


def test_raw_text_shows_bytes_that_are_no_text() -> None:
    assert [record.raw for record in read(b"a\nx\xff\xfey\n\xc3\n")] == ["x\\xff\\xfey", "\\xc3"]


def test_a_stray_quote_costs_only_its_own_line() -> None:
    records = read(b'key,title\n1,one\n2,"two\n3,three\n4,four\n')
    assert [record.line for record in records] == [2, 3, 4, 5]
    assert [outcome(record) for record in records] == [
        {"key": "1", "title": "one"},
        "malformed_csv",
        {"key": "3", "title": "three"},
        {"key": "4", "title": "four"},
    ]
    assert records[1].raw == '2,"two'
    assert records[1].problem is not None
    assert "not closed before the end of the file" in records[1].problem.reason


def test_a_stray_quote_that_meets_another_names_the_line_where_it_shows() -> None:
    stray, good, quoted = read(b'key,title\n2,"two\n3,three\n4,"four"\n')
    assert stray.problem is not None
    assert "line 4 is not CSV" in stray.problem.reason
    assert good.values == {"key": "3", "title": "three"}
    assert quoted.values == {"key": "4", "title": "four"}


def test_of_a_long_line_a_readable_beginning_is_kept() -> None:
    for size in (RECORD_LIMIT_BYTES + 1, 3 * RECORD_LIMIT_BYTES):
        (long,) = read("größe\n".encode() + "ä".encode() * size)
        assert long.raw == "ä" * (RAW_PREFIX_BYTES // 2)
        assert long.end.offset == len("größe\n".encode()) + 2 * size


def test_the_longest_record_is_read_and_one_byte_more_is_not() -> None:
    for extra, expected in ((0, RECORD_LIMIT_BYTES - 1), (1, None)):
        (record,) = read(b"a\n" + b"x" * (RECORD_LIMIT_BYTES - 1 + extra) + b"\n")
        assert (len(record.values["a"]) if record.values else None) == expected
    (quoted,) = read(b'a\n"' + b"x\n" * (RECORD_LIMIT_BYTES // 2 - 2) + b'"\n')
    assert quoted.values is not None


def reference(data: bytes, limit: int) -> Iterator[tuple[int, list[str] | str]]:
    """The rule, told plainly and slowly: the parser's records, and where it fails one line is given up."""
    lines = data.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        fields, took = parse_one(lines[at:], limit)
        if fields:
            yield at + 1, fields
        at += took


def parse_one(lines: list[bytes], limit: int) -> tuple[list[str] | str, int]:
    taken: list[bytes] = []

    def feed() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            if sum(map(len, taken)) > limit:
                raise csv.Error
            yield line.decode()

    try:
        return next(csv.reader(feed(), strict=True)), len(taken)
    except csv.Error:
        return "rejected", 1


@settings(max_examples=1500, deadline=None)
@given(
    st.lists(
        st.sampled_from(['a","c', '"x', 'x"', "a,b", '"a,b"', '"', '""', '"""', "", "xxxxxxxxxx", '"a"b']), max_size=25
    ),
    st.integers(8, 60),
)
@example(['a","c'] * 20, 30)
@example(['a","c'] * 5 + ['x"y'], 60)
@example(['a","c'] * 12 + ['x"'], 30)
def test_quotes_are_resolved_as_the_plain_rule_says(lines: list[str], limit: int) -> None:
    body = "".join(f"{line}\n" for line in lines).encode()
    reader = CsvRecords(io.BytesIO(b"h\n" + body), plain("h"), None, record_limit=limit)
    whole = list(reader)
    found = [(record.line - 1, _fields(record)) for record in whole]
    assert found == [
        (line, fields if isinstance(fields, str) or len(fields) == 1 else "fields")
        for line, fields in reference(body, limit)
    ]
    for index, record in enumerate(whole):
        rest = CsvRecords(io.BytesIO(b"h\n" + body), plain("h"), record.end, record_limit=limit)
        assert list(rest) == whole[index + 1 :]


def _fields(record: Record) -> list[str] | str:
    if record.values is not None:
        return list(record.values.values())
    assert record.problem is not None
    return "fields" if "fields" in record.problem.code else "rejected"


@pytest.mark.parametrize("ending", [b"", b'x"y\n', b'x"\n'])
def test_a_file_whose_every_line_opens_a_quote_is_read_in_time(ending: bytes) -> None:
    """Each line looks as if its record ended a MiB later; read naively, this takes hours."""
    lines = 400_000
    file = io.BytesIO(b"a,b\n" + b'a","c\n' * lines + ending)
    codes = [record.problem.code for record in open_records(file, plain("a", "b"), None) if record.problem]
    assert len(codes) >= lines * 0.5
    assert set(codes) <= {"malformed_csv", "too_many_fields"}


# Round trips


def texts(encoding: str) -> st.SearchStrategy[str]:
    odd = st.sampled_from(list(" \",;|\t\r\n\\'é\u2028"))
    anything = st.characters(codec=encoding, exclude_characters="\0")
    if encoding == "latin-1":
        odd = odd.filter(lambda character: character < "\u0100")
    return st.text(st.one_of(odd, anything), max_size=8)


@st.composite
def tables(draw: st.DrawFn, encoding: str) -> list[list[str]]:
    width = draw(st.integers(1, 4))
    row = st.lists(texts(encoding), min_size=width, max_size=width)
    header = draw(st.lists(texts(encoding), min_size=width, max_size=width, unique=True))
    return [header, *draw(st.lists(row, max_size=8))]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_table_is_read_back_equal_and_from_any_record_on(data: st.DataObject) -> None:
    encoding = data.draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"]))
    table = data.draw(tables("latin-1" if encoding == "latin-1" else "utf-8"))
    assume(not table[0][0].startswith("\ufeff"))
    delimiter = data.draw(st.sampled_from(",;\t|"))
    compression = data.draw(st.sampled_from(["none", "gzip", "zstd"]))
    out = io.StringIO(newline="")
    line_end = data.draw(st.sampled_from(["\n", "\r\n"]))
    # Older Pythons leave a carriage return unquoted where it is not part of the line end.
    quoting = csv.QUOTE_ALL if line_end == "\n" or data.draw(st.booleans()) else csv.QUOTE_MINIMAL
    csv.writer(out, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows(table)

    file = io.BytesIO(PACKERS[compression](out.getvalue().encode(encoding)))
    given_encoding = "latin-1" if encoding == "latin-1" else None
    found = detect_format(file, "x.csv", encoding=given_encoding, delimiter=delimiter)
    assert (found.compression, list(found.columns)) == (compression, table[0])
    records = list(open_records(file, found, None))
    assert [list((record.values or {}).values()) for record in records] == table[1:]
    for index, record in enumerate(records):
        assert list(open_records(file, found, record.end)) == records[index + 1 :]


@pytest.mark.parametrize("encoding", ["shift_jis", "euc_jp", "gb18030", "iso2022_jp", "utf-16-le", "utf-32-be"])
def test_encodings_of_several_bytes_a_character(encoding: str) -> None:
    text = "鍵,題\r\n1,表\\ソ能\r\n2,日本\n3,x\n"
    first, second, third = read(text.encode(encoding), encoding=encoding)
    assert first.values == {"鍵": "1", "題": "表\\ソ能"}
    assert second.values == {"鍵": "2", "題": "日本"}
    assert third.end == Position(len(text.encode()), 5)


def test_undecodable_bytes_in_transcoded_files_cost_their_row() -> None:
    for data, encoding in (
        ("a,b\n1,".encode("utf-16-le") + b"\x00\xd8" + "\n2,x\n".encode("utf-16-le"), "utf-16-le"),
        ("a,b\n1,".encode("shift_jis") + b"\x81" + "\n2,x\n".encode("shift_jis"), "shift_jis"),
    ):
        bad, good = read(data, encoding=encoding)
        assert bad.problem is not None
        assert bad.problem.code == "invalid_encoding"
        assert encoding in bad.problem.reason
        assert good.values == {"a": "2", "b": "x"}


def test_half_a_character_at_the_end_is_not_taken_for_text() -> None:
    (bad,) = read("a\nx".encode("utf-16-le") + b"A", encoding="utf-16-le")
    assert outcome(bad) == "invalid_encoding"
    assert bad.raw == "x\\x41"


# Compressed files


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_several_members_or_frames_are_one_file(compression: str) -> None:
    pack = PACKERS[compression]
    assert rows(pack(b"a,b\n1,") + pack(b"") + pack(b"2\n3,4\n")) == [["1", "2"], ["3", "4"]]


def test_padding_and_skippable_frames_are_passed_over() -> None:
    assert rows(gzip.compress(b"a\n1\n") + b"\0" * 100 + gzip.compress(b"2\n") + b"\0" * 100_000) == [["1"], ["2"]]
    skippable = b"\x53\x2a\x4d\x18" + (70_000).to_bytes(4, "little") + b"x" * 70_000
    assert rows(skippable + zstandard.compress(b"a\n1\n") + skippable) == [["1"]]


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("size", [True, False])
def test_every_shape_of_zstd_frame_is_read(checksum: bool, size: bool) -> None:
    writer = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size, level=1)
    for count in (1, 10, 100, 1000, 300_000):
        assert len(rows(writer.compress(b"a\n" + b"1\n" * count))) == count


@pytest.fixture(scope="module")
def table() -> bytes:
    return b"key,title\n" + b"".join(b"%d,title %d\n" % (n, n * 7919 % 100_003) for n in range(60_000))


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_of_a_cut_file_all_whole_records_are_read_then_it_is_refused(compression: str, table: bytes) -> None:
    packed = PACKERS[compression](table)
    whole = read(packed)
    for cut in (len(packed) - 1, len(packed) // 2, len(packed) // 2 + 1):
        records, error = read_until_failure(packed[:cut])
        assert error.code == "truncated"
        assert f"after line {len(records) + 1}:" in error.message
        assert "fetch it again" in error.message
        assert records == whole[: len(records)]
        assert len(records) >= len(whole) * (cut / len(packed)) * 0.5


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_of_a_corrupt_file_what_stands_before_the_damage_is_read(compression: str, table: bytes) -> None:
    packed = bytearray(PACKERS[compression](table))
    middle = len(packed) // 2
    packed[middle : middle + 2000] = bytes(2000)
    records, error = read_until_failure(bytes(packed))
    assert error.code == "truncated"
    assert len(records) > 15_000
    good = read(table)
    assert records[:15_000] == good[:15_000]


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_a_wrong_checksum_or_trailing_garbage_is_told_after_all_records(compression: str, table: bytes) -> None:
    writer = zstandard.ZstdCompressor(write_checksum=True)
    packed = writer.compress(table) if compression == "zstd" else gzip.compress(table)
    at = len(packed) - (1 if compression == "zstd" else 5)
    flipped = packed[:at] + bytes([packed[at] ^ 1]) + packed[at + 1 :]
    for damaged in (flipped, packed + b"garbage", packed + packed[:4]):
        records, error = read_until_failure(damaged)
        assert error.code == "truncated"
        assert len(records) == 60_000


def test_a_record_that_the_damage_cuts_is_not_given_up_as_malformed() -> None:
    """Its lines may be good in the whole file, and a rejected row would never be read again."""
    whole = gzip.compress(b'a,b\n1,2\n3,"four\nfive\n', compresslevel=0)
    records, _ = read_until_failure(whole[:-8])
    assert [outcome(record) for record in records] == [{"a": "1", "b": "2"}]


# Places in the file


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


# Bounds


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
        (b"1,2\n" + b"x," + b"y" * 996 + b"\n", 120_000),
        (b"z", 1),
        (b"\n", 0),
        (b'"' + b"z" * 99_998 + b"\n", 200),
        (b'"\n' + b"z" * 499_998, 100),
    ],
    ids=["rows", "one line", "blank lines", "quotes", "long quotes"],
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


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.text('a",;\r\n\0é\\', max_size=60).map(str.encode),
        st.builds(lambda data, cut: gzip.compress(data)[:cut], st.binary(max_size=99), st.integers(0, 120)),
        st.builds(lambda data, cut: zstandard.compress(data)[:cut], st.binary(max_size=99), st.integers(0, 120)),
        st.binary(max_size=99).map(lambda data: b"\x28\xb5\x2f\xfd" + data),
        st.binary(max_size=99).map(lambda data: b"\x1f\x8b\x08\x00" + data),
    ),
    st.sampled_from([None, "utf-8", "latin-1", "utf-16", "utf-32-le", "shift_jis", "gb18030", "iso2022_jp", "cp037"]),
)
def test_no_bytes_raise_anything_but_a_source_error(data: bytes, encoding: str | None) -> None:
    with suppress(SourceError):
        read(data, encoding=encoding)
