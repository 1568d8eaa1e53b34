"""What is on the wire: arq's key names (arq 0.28, ``arq/constants.py``) and our JSON. ``docs/wire.md`` describes it."""

import json
import math
import re
from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any
from uuid import UUID

from pydantic_core import from_json, to_json

from holdfast.errors import RunCancelled, RunFailed, WireFormatError
from holdfast.states import RunState

DEFAULT_QUEUE = "arq:queue"
JOB_KEY = "arq:job:"
RESULT_KEY = "arq:result:"
IN_PROGRESS_KEY = "arq:in-progress:"
RETRY_KEY = "arq:retry:"
ABORT_KEY = "arq:abort"
PROGRESS_KEY = "holdfast:progress:"
NAMESPACE = re.compile(r"(?!(arq|holdfast)$)[A-Za-z0-9_-]{0,40}")
"""What a namespace may be; empty: none. The two have keys of their own, which nothing may look like."""
INTAKE_SUFFIX = ":intake"
"""After a queue's key: the list of ids of direct enqueues that no worker has entered into the ledger yet."""

BELL_SUFFIX = ":bell"
"""After a queue's key: a counter that grows when a transaction of the outbox was committed; idle workers watch it."""

JOB_FIELDS: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("t", (int, NoneType), "an integer or null"),
    ("f", (str,), "a string"),
    ("a", (list,), "an array"),
    ("k", (dict,), "an object"),
    ("et", (int,), "an integer"),
)
NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL, but not an escaped backslash before the text ``u0000``."""
LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, which is where Python's time ends."""

MAX_PAYLOAD_BYTES = 1024 * 1024
"""What clients send and workers read unless told otherwise. Larger data belongs into a file or a table."""

MAX_REPORT_BYTES = 4 * 1024 * 1024
"""The largest report, as JSON: MariaDB closes a connection on which more than 16 MiB come at once
(``max_allowed_packet``), and half of that may be escapes."""

MAX_RUN_ID = 255
"""Characters of a run's id in the ledger."""

MAX_UNIQUE_KEY = 150
"""Characters of a unique key: with the kind before it it stands in an indexed column."""


def queue_key(queue: str, namespace: str = "") -> str:
    """Return the key of a queue in Redis, which is also its name in the ledger: ``staging:arq:queue``.

    Args:
        queue: its name; one that begins with the namespace already stays as it is.
        namespace: keeps environments apart that share a Redis; empty: none.

    Raises:
        ValueError: the namespace is ``arq`` or ``holdfast``, too long, or has other characters, or the name is empty.
    """
    if not queue:
        raise ValueError("queue is empty: name it, as arq:queue")
    if not NAMESPACE.fullmatch(namespace):
        raise ValueError(f"namespace {namespace!r}: use at most 40 letters, digits, - and _, but not arq or holdfast")
    prefix = f"{namespace}:" if namespace else ""
    return queue if queue.startswith(prefix) else prefix + queue


@dataclass(frozen=True, slots=True)
class WireResult:
    """A run's end as Redis holds it."""

    succeeded: bool
    state: RunState
    report: dict[str, Any] | None
    error_type: str
    message: str
    duplicate_of: str | None = None
    """The run that stands for this one."""


def _plain(value: object) -> object:
    if isinstance(value, BaseException):
        return {"error": plain_error(value)}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def plain_error(error: BaseException) -> dict[str, str]:
    """Return an error as results carry it: type, message and state."""
    if isinstance(error, RunFailed):
        state = RunState.CANCELLED if isinstance(error, RunCancelled) else RunState.FAILED
        plain = {"type": error.error_type, "message": error.message, "state": state.value}
        return plain if error.duplicate_of is None else plain | {"duplicate_of": error.duplicate_of}
    if isinstance(error, CancelledError):
        return {"type": "cancelled", "message": "the run was cancelled", "state": RunState.CANCELLED.value}
    if isinstance(error.__cause__, WireFormatError):  # arq wraps what our deserializer raises
        error = error.__cause__
    # Database drivers put the statement and its parameters into the lines below the first.
    message = str(error).strip().partition("\n")[0]
    return {"type": type(error).__name__, "message": message, "state": RunState.FAILED.value}


def dumps(data: dict[str, Any]) -> bytes:
    """Write a payload or result as JSON; an exception becomes ``{"error": {"type", "message", "state"}}``.

    Raises:
        TypeError: a value has no JSON form.
    """
    return _encode(data).encode()


def dumps_plain(data: dict[str, Any]) -> bytes:
    """As ``dumps``, three times as fast, of data whose values are all JSON's own already."""
    try:
        written = to_json(data)
    except ValueError:  # half a surrogate pair, which ``dumps`` writes as an escape
        return dumps(data)
    return dumps(data) if b"NaN" in written or b"Infinity" in written else written


def compacted(text: str) -> bytes:
    """Return JSON as producers write it, without the blanks of a database; what cannot be read stays as it is."""
    data = text.encode()
    try:
        return dumps_plain(loads(data))
    except (WireFormatError, ValueError, RecursionError):  # its claim will say so
        return data


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _encoder() -> Callable[[object], str]:
    # The json module makes a new one for each call, which takes a third of it.
    make: Any = json.encoder.c_make_encoder  # type: ignore[attr-defined]
    if make is None:  # not CPython
        return json.JSONEncoder(default=_plain, separators=(",", ":"), allow_nan=False).encode
    quote = json.encoder.encode_basestring_ascii
    encode = make(None, _plain, quote, None, ":", ",", False, False, False)
    return lambda value: "".join(encode(value, 0))


_encode = _encoder()
# Strictly numbers that JSON has: what is read here must be writable again.
_decode = json.JSONDecoder(parse_constant=_finite, parse_float=_finite).decode
# Where a number may be too large for a float: pydantic reads it as infinite. A search for one letter is the quickest.
_EXPONENTS = re.compile(rb"e(?<=[0-9].)[-+]?[0-9]").search, re.compile(rb"E(?<=[0-9].)[-+]?[0-9]").search
_MANY_DIGITS = 300
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % _MANY_DIGITS).search


def loads(data: bytes) -> dict[str, Any]:
    """Read a payload or result.

    Raises:
        WireFormatError: it is not a JSON object. Pickles, arq's default, are never opened.
    """
    try:
        value = _read(data)
    except (ValueError, RecursionError) as error:
        raise WireFormatError(f"not JSON: {error}; producers must use a JSON serializer, see docs/wire.md") from None
    if not isinstance(value, dict):
        raise WireFormatError(f"a JSON object is expected, not {type(value).__name__}; see docs/wire.md")
    return value


def _read(data: bytes) -> Any:
    if not _may_overflow(data):
        try:
            return from_json(data, allow_inf_nan=False)
        except ValueError:  # it is for the other to refuse, or to take
            pass
    return _decode(data.decode())


def _may_overflow(data: bytes) -> bool:
    lower, upper = _EXPONENTS
    if lower(data) is not None or upper(data) is not None:
        return True
    return len(data) >= _MANY_DIGITS and _LONG_NUMBER(data) is not None


def job_payload(
    kind: str, arguments: dict[str, Any] | bytes, enqueued_ms: int, *, unique_key: str | None = None
) -> bytes:
    """Return what is stored under ``arq:job:<id>``.

    Args:
        kind: the kind's name.
        arguments: the request, as JSON values or as JSON.
        enqueued_ms: when it was enqueued, Unix time in milliseconds.
        unique_key: what is to be unique among the live runs of this kind; stock arq does not look at it.
    """
    request = arguments if isinstance(arguments, bytes) else dumps(arguments)
    unique = b"" if unique_key is None else b',"u":' + json.dumps(unique_key).encode()
    return b'%b%b,"et":%d%b}' % (_payload_head(kind), request, enqueued_ms, unique)


@cache
def _payload_head(kind: str) -> bytes:
    return b'{"t":null,"f":%b,"a":[],"k":' % json.dumps(kind).encode()


def read_job(data: bytes) -> dict[str, Any]:
    """Read what is stored under ``arq:job:<id>``.

    Raises:
        WireFormatError: it is not a job; arq would be stopped by some of what this refuses.
    """
    value = loads(data)
    for name, kinds, rule in JOB_FIELDS:
        if not isinstance(value.get(name), kinds):
            raise WireFormatError(f"{name!r} of a job must be {rule}; see docs/wire.md")
    if not 0 <= value["et"] <= LATEST_MS:
        raise WireFormatError("'et' of a job must be Unix time in milliseconds; see docs/wire.md")
    unique_key = value.get("u")
    if unique_key is not None and not (isinstance(unique_key, str) and 0 < len(unique_key) <= MAX_UNIQUE_KEY):
        raise WireFormatError(f"'u' of a job must be a string of 1 to {MAX_UNIQUE_KEY} characters; see docs/wire.md")
    if b"\\u" in data:
        _check_text(data, value)
    return value


def _check_text(data: bytes, value: dict[str, Any]) -> None:
    """Refuse what a database cannot store; both can stand in JSON as an escape only."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise WireFormatError("a text of the job holds half a surrogate pair: write whole characters") from None
    if NUL_ESCAPE.search(data):
        raise WireFormatError("a text of the job holds a NUL character (U+0000): take it out")


def read_result(data: bytes) -> WireResult:
    """Read what is stored under ``arq:result:<id>``.

    Raises:
        WireFormatError: it is not a result.
    """
    value = loads(data)
    if not isinstance(value.get("s"), bool) or "r" not in value:
        raise WireFormatError("a result needs 's' (boolean) and 'r'; see docs/wire.md")
    if value["s"]:
        report = value["r"] if isinstance(value["r"], dict) else None
        return WireResult(succeeded=True, state=RunState.SUCCEEDED, report=report, error_type="", message="")
    error = value["r"].get("error") if isinstance(value["r"], dict) else None
    if not isinstance(error, dict):
        error = {"type": "Error", "message": str(value["r"])}
    duplicate_of = error.get("duplicate_of")
    return WireResult(
        succeeded=False,
        state=_ENDS.get(str(error.get("state")), RunState.FAILED),
        report=None,
        error_type=str(error.get("type", "Error")),
        message=str(error.get("message", "")),
        duplicate_of=duplicate_of if isinstance(duplicate_of, str) else None,
    )


_ENDS = {state.value: state for state in (RunState.CANCELLED, RunState.QUARANTINED)}
"""How a run may have ended without a report, besides that it failed."""
