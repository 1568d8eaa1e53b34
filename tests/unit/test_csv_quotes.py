import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobs.import_tasks.csv_records import CsvRecords
from jobs.import_tasks.record_types import Record
from jobs.import_tasks.records import open_records
from tests.unit.import_files import plain


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
    assert set(codes) <= {"malformed_csv", "too_many_fields", "too_few_fields"}
