import gzip
import io
import json
import tracemalloc
from contextlib import suppress
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.import_tasks.file_format import detect_format
from jobs.import_tasks.ndjson_records import DEPTH_LIMIT
from jobs.import_tasks.record_types import RECORD_LIMIT_BYTES, FileFormat, Position, Problem, Record
from jobs.import_tasks.records import open_records
from jobs.sources import SourceError

PLAIN = FileFormat("ndjson", "none", "utf-8", None, ())


def read(data: bytes, file_format: FileFormat = PLAIN) -> list[Record]:
    records = list(open_records(io.BytesIO(data), file_format, None))
    for record in records:
        assert (record.values is None) != (record.problem is None)
        record.raw.encode()
    return records


def problem(line: bytes) -> Problem:
    """The problem of a line that stands between two good ones."""
    before, bad, after = read(b'{"a":1}\n' + line + b'\n{"a":2}\n')
    assert (before.values, after.values) == ({"a": 1}, {"a": 2})
    assert bad.problem is not None
    assert bad.problem.reason.isprintable()
    assert bad.problem.column is None or bad.problem.column.isprintable()
    assert bad.line == 2
    return bad.problem


def test_records_tell_their_lines_raw_text_values_and_end() -> None:
    first, second = read(b'{"a": "x"}\r\n\n \t\n{"b": [1, null, true]}')
    assert first == Record(1, '{"a": "x"}', {"a": "x"}, None, Position(12, 2))
    assert second == Record(4, '{"b": [1, null, true]}', {"b": [1, None, True]}, None, Position(38, 5))


def test_numbers_keep_their_digits() -> None:
    (record,) = read(b'{"big": 123456789012345678901234567890, "float": 1.5e300, "negative": -0.0}')
    assert record.values == {"big": 123456789012345678901234567890, "float": 1.5e300, "negative": -0.0}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "malformed_json"),
        (b'{"a":1} {"a":2}', "malformed_json"),
        (b'{"a":1,}', "malformed_json"),
        (b"{'a':1}", "malformed_json"),
        (b'{"a":"\t"}', "malformed_json"),
        (b'{"a":NaN}', "malformed_json"),
        (b'{"a":[-Infinity]}', "malformed_json"),
        (b'{"a":1e400}', "malformed_json"),
        (b'{"a":-1e400}', "malformed_json"),
        (b'{"a":' + b"9" * 5000 + b"}", "malformed_json"),
        (b'{"a":"\\ud800"}', "malformed_json"),
        (b'{"a":{"\\uDFFF":1}}', "malformed_json"),
        (b'{"\\ud800":1}', "malformed_json"),
        (b"[1]", "not_an_object"),
        (b'"a"', "not_an_object"),
        (b"1", "not_an_object"),
        (b"1.5", "not_an_object"),
        (b"null", "not_an_object"),
        (b"true", "not_an_object"),
        (b'{"a":1,"a":1}', "duplicate_json_key"),
        (b'{"x":[{"a":1,"b":2,"a":3}]}', "duplicate_json_key"),
        (b'{"\\u0000":1,"\\u0000":2}', "duplicate_json_key"),
        (b'{"a":"\\u0000"}', "nul_character"),
        (b'{"a":[{"b":["\\u0000"]}]}', "nul_character"),
        (b'{"a":{"\\u0000":1}}', "nul_character"),
        (b'{"\\u0000":1}', "nul_character"),
        (b'{"a":"\0"}', "nul_character"),
        (b'{"a":"caf\xe9"}', "invalid_encoding"),
        (b'{"a":"\xed\xa0\x80"}', "invalid_encoding"),
        (b'{"a":"' + b"x" * RECORD_LIMIT_BYTES + b'"}', "line_too_long"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "too_deep"),
        (b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "too_deep"),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep"),
        (b"[" * 500_000, "too_deep"),
        (b'{"a":' * 200_000, "too_deep"),
    ],
    ids=lambda value: value[:24] if isinstance(value, bytes) else "",
)
def test_a_bad_line_is_rejected_and_its_neighbours_are_read(line: bytes, code: str) -> None:
    assert problem(line).code == code


def test_the_key_of_a_problem_is_named() -> None:
    assert problem(b'{"ok":1,"bad":["\\u0000"]}').column == "bad"
    assert problem(b'{"ok":1,"bad":"\\ud800"}').column == "bad"
    assert problem(b'{"ok":1,"bad":2,"bad":3}').column == "bad"
    assert problem(b'{"ok":1,"bad":' + b"[" * 150 + b"]" * 150 + b"}").column == "bad"


def test_reasons_say_what_and_where() -> None:
    assert "character 8" in problem(b'{"a":1,}').reason
    assert "1e400" in problem(b'{"a":1e400}').reason
    assert "byte 0xe9 (character 10" in problem(b'{"a":"caf\xe9"}').reason
    assert "an array" in problem(b"[1]").reason


def test_what_only_looks_suspicious_is_read() -> None:
    (nested,) = read(b'{"a":' + b"[" * (DEPTH_LIMIT - 1) + b"]" * (DEPTH_LIMIT - 1) + b"}")
    assert nested.values is not None
    many = {"a": [[n] for n in range(500)], "b": "{[" * 500}
    assert read(json.dumps(many).encode())[0].values == many
    assert read(rb'{"a":"\\u0000 \ud83d\ude00 \\ud800"}')[0].values == {"a": "\\u0000 😀 \\ud800"}
    assert read(rb'{"a":1,"b":{"a":1}}')[0].values == {"a": 1, "b": {"a": 1}}


def test_a_mark_at_the_beginning_is_passed_over() -> None:
    (record,) = read(b'\xef\xbb\xbf{"a":1}\n')
    assert record.values == {"a": 1}
    assert record.end == Position(11, 2)


def test_many_keys_are_checked_in_time() -> None:
    line = "{" + ",".join(f'"{n}":0' for n in range(80_000)) + ',"79999":1}'
    assert problem(line.encode()).code == "duplicate_json_key"


def test_a_cut_file_gives_its_whole_lines_first() -> None:
    data = gzip.compress(b"".join(b'{"n":%d}\n' % (n * 7919 % 100_003) for n in range(50_000)))
    reader = open_records(io.BytesIO(data[:-9]), FileFormat("ndjson", "gzip", "utf-8", None, ()), None)
    records: list[Record] = []
    with pytest.raises(SourceError) as caught:
        records.extend(reader)
    assert caught.value.code == "truncated"
    assert f"after line {len(records)}:" in caught.value.message
    assert len(records) > 49_000
    assert all(record.problem is None for record in records)


def test_memory_does_not_grow_with_the_file() -> None:
    line = json.dumps({"key": "K-1", "title": "x" * 900, "labels": ["a", "b"]}).encode() + b"\n"
    packed = zstandard.compress(line * 60_000)
    tracemalloc.start()
    try:
        reader = open_records(io.BytesIO(packed), FileFormat("ndjson", "zstd", "utf-8", None, ()), None)
        assert sum(record.problem is None for record in reader) == 60_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('abé\n"\\', max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.dictionaries(st.text("xyzü\t", max_size=4), JSON, max_size=4), min_size=1, max_size=6),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
    st.sampled_from([bytes, gzip.compress, zstandard.compress]),
)
def test_any_objects_are_read_back_equal_and_from_any_record_on(
    objects: list[dict[str, Any]], ascii_only: bool, encoding: str, line_end: str, pack: type[bytes]
) -> None:
    text = "".join(json.dumps(value, ensure_ascii=ascii_only) + line_end for value in objects)
    file = io.BytesIO(pack(text.encode(encoding)))
    found = detect_format(file, "x")
    assert found.format == "ndjson"
    records = list(open_records(file, found, None))
    assert [record.values for record in records] == objects
    for index, record in enumerate(records):
        assert list(open_records(file, found, record.end)) == records[index + 1 :]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text('{}[]":,\\ud80e19.-\n aé\0', max_size=60).map(str.encode),
        st.builds(lambda data, cut: gzip.compress(data)[:cut], st.binary(max_size=99), st.integers(0, 120)),
    ),
    st.sampled_from(["none", "gzip", "zstd"]),
    st.sampled_from(["utf-8", "latin-1", "utf-16", "shift_jis"]),
)
def test_no_bytes_raise_anything_but_a_source_error(data: bytes, compression: Any, encoding: str) -> None:
    with suppress(SourceError):
        read(data, FileFormat("ndjson", compression, encoding, None, ()))
