import csv
import io
from typing import Literal

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jobs.import_tasks.file_format import detect_format
from jobs.import_tasks.record_types import Position
from jobs.import_tasks.records import open_records
from tests.unit.import_files import PACKERS, outcome, read


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
    quoting: Literal[0, 1] = csv.QUOTE_ALL if line_end == "\n" or data.draw(st.booleans()) else csv.QUOTE_MINIMAL
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
