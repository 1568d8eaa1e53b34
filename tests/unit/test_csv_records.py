import csv
import gzip
import io
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.import_tasks.record_types import RAW_PREFIX_BYTES, RECORD_LIMIT_BYTES, Position, Record
from jobs.sources import SourceError
from tests.unit.import_files import outcome, read, rows


def test_records_tell_their_lines_raw_text_values_and_end() -> None:
    first, second, third = read(b'key,title\r\n1,one\r\n\r\n2,"two\r\n""2"" "\r\n3,three')
    assert first == Record(2, "1,one", {"key": "1", "title": "one"}, None, Position(18, 3))
    assert second == Record(4, '2,"two\r\n""2"" "', {"key": "2", "title": 'two\r\n"2" '}, None, Position(37, 6))
    assert third == Record(6, "3,three", {"key": "3", "title": "three"}, None, Position(44, 7))


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
        (b'1,"' + (b"x" * 999 + b"\n") * 1200, "malformed_csv", "within 1,048,576 bytes"),
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


def test_reasons_stay_one_line_whatever_the_delimiter() -> None:
    for record in read(b'a\tb\n1\n"1"x\t2\n', delimiter="\t"):
        assert record.problem is not None
        assert record.problem.reason.isprintable()


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
