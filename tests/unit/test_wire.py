"""What is written to Redis and read from it: JSON, and nothing that could run."""

import json
import pickle
from contextlib import suppress
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import wire
from holdfast.errors import RunCancelled, RunFailed, WireFormatError
from holdfast.states import RunState

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


class Colour(Enum):
    RED = "red"


class Bomb:
    """Executes when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was opened",))


def test_a_payload_is_what_arq_reads() -> None:
    payload = wire.job_payload("import_tasks", {"source": "/imports/\u00e4.csv"}, 1_767_225_600_123)
    assert json.loads(payload) == {
        "t": None,
        "f": "import_tasks",
        "a": [],
        "k": {"source": "/imports/\u00e4.csv"},
        "et": 1_767_225_600_123,
    }
    assert wire.read_job(payload) == json.loads(payload)


@given(st.dictionaries(st.text(), JSON, max_size=5))
@settings(max_examples=50)
def test_json_comes_back(value: dict[str, Any]) -> None:
    assert wire.loads(wire.dumps(value)) == value


def test_values_that_json_has_not_have_one_form() -> None:
    value = {
        "at": datetime(2026, 1, 31, 8, 30, tzinfo=UTC),
        "day": date(2026, 1, 31),
        "id": UUID(int=7),
        "colour": Colour.RED,
    }
    assert json.loads(wire.dumps(value)) == {
        "at": "2026-01-31T08:30:00+00:00",
        "day": "2026-01-31",
        "id": "00000000-0000-0000-0000-000000000007",
        "colour": "red",
    }


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}])
def test_what_has_no_form_in_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=f"{type(value).__name__} cannot be written as JSON"):
        wire.dumps({"r": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_has_not_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        wire.dumps({"r": value})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"a": 1} x',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        pickle.dumps(Bomb()),
        b"1" * 5_000,
    ],
    ids=["empty", "cut", "not UTF-8", "more", "deep", "deep objects", "pickle", "a long number"],
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(WireFormatError, match=r"not JSON: .*see docs/wire\.md"):
        wire.loads(data)


def _as_strict_json_reads(data: bytes) -> object:
    def finite(text: str) -> float:
        if (value := float(text)) in {float("inf"), float("-inf")} or value != value:  # noqa: PLR0124 - NaN
            raise ValueError(text)
        return value

    try:
        return json.loads(data.decode(), parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError):
        return None


NUMBERS = st.from_regex(r"\A-?[0-9]{1,4}(\.[0-9]{1,20})?([eE][-+]?[0-9]{1,4})?\Z")
PIECES = st.sampled_from(["{", "}", "[", "]", ",", ":", '"', '"a"', "null", "NaN", "1", " ", "\\u0000", "\\ud800", "é"])


@given(st.one_of(NUMBERS, st.lists(PIECES, max_size=12).map("".join)))
@settings(deadline=None, max_examples=300)
def test_the_quick_reader_takes_what_the_strict_one_takes(text: str) -> None:
    data = f'{{"v":{text}}}'.encode()
    expected = _as_strict_json_reads(data)
    if isinstance(expected, dict):
        assert wire.loads(data) == expected
    else:
        with pytest.raises(WireFormatError):
            wire.loads(data)


@pytest.mark.parametrize("number", ["1e999", "-1E+999", "1.8e308", "1" * 400 + ".0"])
def test_a_number_too_large_for_a_float_is_refused(number: str) -> None:
    with pytest.raises(WireFormatError, match="no finite number"):
        wire.loads(f'{{"v":[{number}]}}'.encode())


@pytest.mark.parametrize("data", [b"[]", b"null", b'"text"', b"3"])
def test_what_is_no_object_is_refused(data: bytes) -> None:
    with pytest.raises(WireFormatError, match="a JSON object is expected, not"):
        wire.loads(data)


@given(st.binary(max_size=200))
def test_whatever_lies_in_redis_raises_nothing_else(data: bytes) -> None:
    for read in (wire.loads, wire.read_job, wire.read_result):
        with suppress(WireFormatError):
            read(data)


GOOD_JOB: dict[str, object] = {"t": None, "f": "import_tasks", "a": [], "k": {}, "et": 0}


@pytest.mark.parametrize(
    "wrong",
    [{"t": "1"}, {"f": None}, {"f": 3}, {"a": {}}, {"k": []}, {"k": None}, {"et": "0"}, {"et": 1.5}, {"et": -1}],
)
def test_a_job_with_a_wrong_field_is_refused_by_name(wrong: dict[str, object]) -> None:
    assert wire.read_job(json.dumps(GOOD_JOB).encode()) == GOOD_JOB
    (name,) = wrong
    with pytest.raises(WireFormatError, match=f"'{name}' of a job must be .*; see docs/wire.md"):
        wire.read_job(json.dumps(GOOD_JOB | wrong).encode())
    if name != "t":  # it may be absent as it may be null
        with pytest.raises(WireFormatError, match=f"'{name}' of a job must be"):
            wire.read_job(json.dumps({key: value for key, value in GOOD_JOB.items() if key != name}).encode())


@pytest.mark.parametrize("key", [None, "k", "k" * wire.MAX_UNIQUE_KEY])
def test_a_unique_key_is_read(key: str | None) -> None:
    assert wire.read_job(json.dumps({**GOOD_JOB, "u": key}).encode())["u"] == key


@pytest.mark.parametrize("key", ["", "k" * (wire.MAX_UNIQUE_KEY + 1), 1, ["k"], {"k": 1}, True])
def test_a_unique_key_that_no_ledger_can_hold_is_refused(key: object) -> None:
    with pytest.raises(WireFormatError, match="'u' of a job must be a string of 1 to 150 characters"):
        wire.read_job(json.dumps({**GOOD_JOB, "u": key}).encode())


def result_of(value: object, *, success: bool) -> wire.WireResult:
    return wire.read_result(wire.dumps({"s": success, "r": value, "st": 1, "ft": 2}))


def test_a_report_is_read() -> None:
    assert result_of({"rows_read": 3}, success=True) == wire.WireResult(
        succeeded=True, state=RunState.SUCCEEDED, report={"rows_read": 3}, error_type="", message=""
    )
    assert result_of(None, success=True).report is None


@pytest.mark.parametrize(
    ("error", "state", "error_type", "message"),
    [
        (RunFailed("id", "missing_column", "no column 'key'"), RunState.FAILED, "missing_column", "no column 'key'"),
        (RunCancelled("id", "cancelled", "by ada"), RunState.CANCELLED, "cancelled", "by ada"),
        (ValueError("a\u00e4"), RunState.FAILED, "ValueError", "a\u00e4"),
    ],
)
def test_an_error_is_read_as_it_was_raised(error: Exception, state: RunState, error_type: str, message: str) -> None:
    read = result_of(error, success=False)
    assert (read.succeeded, read.report) == (False, None)
    assert (read.state, read.error_type, read.message) == (state, error_type, message)


@pytest.mark.parametrize("value", ["job expired", None, 3, {"other": 1}, {"error": "text"}, ["a"]])
def test_an_error_of_another_program_is_shown(value: object) -> None:
    read = result_of(value, success=False)
    assert (read.succeeded, read.state, read.error_type, read.message) == (False, RunState.FAILED, "Error", str(value))


@pytest.mark.parametrize("value", [{}, {"s": True}, {"r": 1}, {"s": 1, "r": {}}, {"s": "true", "r": {}}])
def test_what_is_no_result_is_refused(value: dict[str, object]) -> None:
    with pytest.raises(WireFormatError, match="a result needs 's'"):
        wire.read_result(json.dumps(value).encode())
