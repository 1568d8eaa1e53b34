import codecs
import gzip
import io
import tracemalloc
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.import_tasks.file_format import check_columns, detect_format
from jobs.import_tasks.record_types import FileFormat, Position
from jobs.import_tasks.text_encoding import is_read_directly
from jobs.sources import SourceError

TABLE = "key,title,größe\n1,Ärger,2\n"


def detect(
    data: bytes,
    name: str = "tasks.csv",
    *,
    format: str | None = None,  # noqa: A002
    encoding: str | None = None,
    delimiter: str | None = None,
) -> FileFormat:
    file = io.BytesIO(data)
    try:
        return detect_format(file, name, format=format, encoding=encoding, delimiter=delimiter)
    finally:
        assert file.tell() == 0


def refusal(
    data: bytes,
    name: str = "tasks.csv",
    *,
    format: str | None = None,  # noqa: A002
    encoding: str | None = None,
    delimiter: str | None = None,
) -> SourceError:
    with pytest.raises(SourceError) as caught:
        detect(data, name, format=format, encoding=encoding, delimiter=delimiter)
    assert caught.value.message.isprintable()
    return caught.value


@pytest.mark.parametrize(
    ("pack", "compression"),
    [(bytes, "none"), (gzip.compress, "gzip"), (zstandard.ZstdCompressor().compress, "zstd")],
)
@pytest.mark.parametrize("name", ["tasks.csv", "tasks.csv.gz", "tasks.csv.zst", "tasks"])
def test_compression_is_told_by_the_bytes_and_not_by_the_name(pack: type[bytes], compression: str, name: str) -> None:
    found = detect(pack(TABLE.encode()), name)
    assert found == FileFormat("csv", compression, "utf-8", ",", ("key", "title", "größe"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("utf-16", "utf-16"),
        ("utf-32", "utf-32"),
    ],
)
def test_encodings_that_the_bytes_tell(encoding: str, found: str) -> None:
    assert detect(TABLE.encode(encoding)).encoding == found
    assert detect(TABLE.encode(encoding)).columns == ("key", "title", "größe")


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE])
def test_big_endian_marks(mark: bytes) -> None:
    encoding = "utf-16-be" if mark == codecs.BOM_UTF16_BE else "utf-32-be"
    assert detect(mark + TABLE.encode(encoding)).columns == ("key", "title", "größe")


@pytest.mark.parametrize("given", ["utf-8", "UTF8", "utf-8-sig", "utf-16-le"])
def test_a_byte_order_mark_is_never_part_of_the_header(given: str) -> None:
    data = ("\ufeff" + TABLE).encode("utf-8" if "8" in given else given)
    assert detect(data, encoding=given).columns == ("key", "title", "größe")


def test_german_text_in_a_code_page_is_recognised() -> None:
    rows = "".join(f"{n},Prüfung der Übertragungsgrößen für Käufer,schön\n" for n in range(50))
    found = detect(("key,title,note\n" + rows).encode("cp1252"))
    assert "Prüfung der Übertragungsgrößen für Käufer".encode("cp1252").decode(found.encoding) == (
        "Prüfung der Übertragungsgrößen für Käufer"
    )


def test_a_few_bad_bytes_do_not_make_a_file_anything_but_utf8() -> None:
    assert detect(b"key,title\n1,caf\xe9\n").encoding == "utf-8"
    assert detect(b"key,title\n1,caf\xe9\n" * 50 + "2,für\n".encode()).encoding == "utf-8"


def test_a_character_that_the_sample_cuts_is_no_bad_byte() -> None:
    row = "ü" * 99 + "\n"
    assert detect(("x" + "key\n" + row * 3000).encode()).encoding == "utf-8"


@pytest.mark.parametrize(
    "encoding",
    ["utf-9", "", "base64", "rot13", "idna", "punycode", "unicode_escape", "undefined", "a\0b", "utf-7", "x" * 10_000],
)
def test_what_is_no_encoding_of_files_is_refused(encoding: str) -> None:
    assert refusal(TABLE.encode(), encoding=encoding).code == "unknown_encoding"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_an_unknown_byte_order_is_asked_for(encoding: str) -> None:
    error = refusal(b"\0k\0e\0y\0\n", encoding=encoding)
    assert error.code == "invalid_encoding"
    assert f"{encoding}-le" in error.message
    assert detect(b"\0k\0e\0y\0\n", encoding="utf-16-be").columns == ("key",)


def test_bytes_in_the_header_that_are_not_valid_name_the_way_out() -> None:
    error = refusal("größe,b\n".encode("latin-1"))
    assert error.code == "invalid_encoding"
    assert "0xf6" in error.message
    assert "--encoding" in error.message
    assert detect("größe,b\n".encode("latin-1"), encoding="latin-1").columns == ("größe", "b")


def test_which_encodings_are_read_without_transcoding() -> None:
    assert all(map(is_read_directly, ["utf-8", "utf-8-sig", "ascii", "iso8859-1", "cp1252", "koi8-r", "cp437"]))
    assert not any(
        map(is_read_directly, ["utf-16", "utf-32-be", "shift_jis", "gb18030", "big5", "euc_kr", "iso2022_jp", "cp037"])
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", '{"a":1}\n', "csv"),
        ("a.tsv", "a\tb\n", "csv"),
        ("A.CSV.GZ", '{"a":1}\n', "csv"),
        ("a.ndjson", "a,b\n", "ndjson"),
        ("a.jsonl.zst", "a,b\n", "ndjson"),
        ("a.json", '\n {"a":1}\n', "ndjson"),
        ("-", "a,b\n", "csv"),
        ("-", "\ufeff{}\n", "ndjson"),
        ("a.txt", "[a],b\n", "csv"),
    ],
)
def test_the_format_is_told_by_the_name_and_else_by_the_content(name: str, text: str, expected: str) -> None:
    assert detect(text.encode(), name).format == expected


def test_the_given_format_counts_more_than_the_name() -> None:
    assert detect(b"a,b\n", "a.ndjson", format="csv").format == "csv"
    assert detect(b'{"a":1}\n', "a.csv", format="ndjson").columns == ("a",)
    assert refusal(b"a,b\n", format="xml").code == "unknown_format"


@pytest.mark.parametrize(
    ("header", "delimiter", "columns"),
    [
        ("a,b", ",", ("a", "b")),
        ("a;b;c", ";", ("a", "b", "c")),
        ("a\tb", "\t", ("a", "b")),
        ("a|b", "|", ("a", "b")),
        ("a,b;c", ",", ("a", "b;c")),
        ('"a;b;c;d",e', ",", ("a;b;c;d", "e")),
        ('"one\nname";b', ";", ("one\nname", "b")),
        ("alone", ",", ("alone",)),
        ("\n\r\na,b", ",", ("a", "b")),
    ],
)
def test_the_delimiter_is_the_one_that_gives_most_columns(
    header: str, delimiter: str, columns: tuple[str, ...]
) -> None:
    found = detect(f"{header}\n1\n".encode())
    assert (found.delimiter, found.columns) == (delimiter, columns)


def test_tabs_come_first_for_tsv_files() -> None:
    assert detect(b"a,b\tc\n", "x.tsv").delimiter == "\t"
    assert detect(b"a,b\tc\n", "x.csv").delimiter == ","


def test_a_given_delimiter_is_taken() -> None:
    assert detect(b"a,b:c\n", delimiter=":").columns == ("a,b", "c")


@pytest.mark.parametrize("delimiter", ["", ",,", '"', "\n", "\r", "\0", "\\t", "\ud800"])
def test_what_cannot_delimit_is_refused(delimiter: str) -> None:
    assert refusal(b"a,b\n", delimiter=delimiter).code == "invalid_delimiter"


def test_ndjson_has_no_delimiter() -> None:
    assert refusal(b"{}\n", "a.ndjson", delimiter=",").code == "invalid_delimiter"


def test_the_keys_of_the_sample_are_shown_for_ndjson() -> None:
    data = b'{"a":1,"b":2}\nnot json\n{"c":3}\n'
    assert detect(data, "a.ndjson") == FileFormat("ndjson", "none", "utf-8", None, ("a", "b", "c"))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (gzip.compress(b""), "empty_file"),
        (b"\n\r\n\n", "no_header"),
        (codecs.BOM_UTF8, "no_header"),
        (codecs.BOM_UTF16_LE, "no_header"),
        (b'"a,b\n1,2\n', "invalid_header"),
        (b"a\0,b\n", "invalid_header"),
        (b"x" * 2_000_000, "invalid_header"),
        (b"a,b\r1,2\r", "cr_line_ends"),
        (b"a,b\r" + b"1,2\r" * 500_000, "cr_line_ends"),
        (gzip.compress(TABLE.encode())[:10], "truncated"),
        (zstandard.compress(TABLE.encode())[:5], "truncated"),
        (b"PK\x03\x04rest", "unknown_format"),
        (gzip.compress(b"SQLite format 3\0"), "unknown_format"),
    ],
    ids=range(14),
)
def test_files_that_cannot_be_read_are_refused_with_a_reason(data: bytes, code: str) -> None:
    assert refusal(data).code == code


def test_a_json_array_is_told_how_to_become_ndjson() -> None:
    error = refusal(b'[\n {"a": 1}]', "tasks.json")
    assert error.code == "unknown_format"
    assert "jq -c" in error.message


def test_ndjson_with_old_mac_line_ends() -> None:
    assert refusal(b'{"a":1}\r{"a":2}\r', "a.ndjson").code == "cr_line_ends"
    assert detect(b'{"a":1}\r', "a.ndjson").columns == ("a",)


def test_a_damage_behind_the_header_is_left_for_the_reading() -> None:
    rows = "".join(f"{n},title {n * 7919 % 1000},3\n" for n in range(5000))
    data = gzip.compress((TABLE + rows).encode())
    assert detect(data[:-2000]).columns == ("key", "title", "größe")


def test_columns_that_are_missing_or_stand_twice_are_named() -> None:
    found = FileFormat("csv", "none", "utf-8", ",", ("key", "title", "note", "note"))
    assert check_columns(found, ["key", "title"]) == []
    missing, twice = check_columns(found, ["titel", "note", "titel", "key"])
    assert missing.code == "missing_column"
    assert "'key', 'title'" in missing.message
    assert "did you mean 'title'?" in missing.message
    assert twice.code == "duplicate_column"
    assert "2 times" in twice.message


def test_long_headers_make_short_messages() -> None:
    found = FileFormat("csv", "none", "utf-8", ",", tuple(f"column\n{n}" for n in range(50_000)))
    (error,) = check_columns(found, ["x" * 100_000])
    assert len(error.message) < 1500
    assert error.message.isprintable()
    assert "49970 more" in error.message


def test_any_key_may_come_in_ndjson() -> None:
    assert check_columns(FileFormat("ndjson", "none", "utf-8", None, ("a",)), ["b"]) == []


def test_format_and_position_survive_their_way_through_json() -> None:
    found = FileFormat("csv", "zstd", "utf-16", ";", ("a", "b"))
    assert FileFormat.from_json(found.to_json()) == found
    assert Position.from_json(Position(7, 3).to_json()) == Position(7, 3)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_bomb_is_looked_at_in_bounded_memory(pack: type[bytes]) -> None:
    data = pack(b"key,title\n" + b"\n" * 60_000_000)
    tracemalloc.start()
    try:
        assert detect(data).columns == ("key", "title")
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300), st.binary(max_size=200).map(gzip.compress), st.text('a",;{}[]\r\n\0é').map(str.encode)
    ),
    st.sampled_from(
        [None, "utf-8", "latin-1", "utf-16", "utf-32", "shift_jis", "gb18030", "iso2022_jp", "cp037", "hz"]
    ),
    st.sampled_from(["x", "x.csv", "x.ndjson"]),
)
def test_no_bytes_raise_anything_but_a_source_error(data: bytes, encoding: str | None, name: str) -> None:
    with suppress(SourceError):
        detect(data, name, encoding=encoding)
