"""What is on the wire: arq's key names (arq 0.28, ``arq/constants.py``) and our JSON. ``docs/wire.md`` describes it."""

import json
import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from types import UnionType
from typing import Any
from uuid import UUID

from holdfast.errors import RunCancelled, RunFailed, WireFormatError
from holdfast.states import RunState

DEFAULT_QUEUE = "arq:queue"
JOB_KEY = "arq:job:"
RESULT_KEY = "arq:result:"
IN_PROGRESS_KEY = "arq:in-progress:"
RETRY_KEY = "arq:retry:"
PROGRESS_KEY = "holdfast:progress:"

JOB_FIELDS: dict[str, tuple[type | UnionType, str]] = {
    "t": (int | None, "an integer or null"),
    "f": (str, "a string"),
    "a": (list, "an array"),
    "k": (dict, "an object"),
    "et": (int, "an integer"),
}
NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""An escaped NUL, but not an escaped backslash before the text ``u0000``."""
LATEST_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, which is where Python's time ends."""

ENQUEUE_LUA = """
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return 0 end
local now = redis.call('TIME')
local score = ARGV[2]
if score == '' then score = now[1] * 1000 + math.floor(now[2] / 1000) end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[3], score, ARGV[3])
return 1
"""
"""KEYS: job, result, queue. ARGV: payload, due (Unix ms, or empty for now), run id. 1 when it was enqueued, 0 when
the id is taken. The payload has no expiry: a run that waits for long is not lost, it goes when the run is over."""


@dataclass(frozen=True, slots=True)
class WireResult:
    """A run's end as Redis holds it."""

    succeeded: bool
    state: RunState
    report: dict[str, Any] | None
    error_type: str
    message: str


def _plain(value: object) -> object:
    if isinstance(value, BaseException):
        return {"error": _plain_error(value)}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _plain_error(error: BaseException) -> dict[str, str]:
    if isinstance(error, RunFailed):
        state = RunState.CANCELLED if isinstance(error, RunCancelled) else RunState.FAILED
        return {"type": error.error_type, "message": error.message, "state": state.value}
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
    return json.dumps(data, default=_plain, separators=(",", ":"), allow_nan=False).encode()


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def loads(data: bytes) -> dict[str, Any]:
    """Read a payload or result.

    Raises:
        WireFormatError: it is not a JSON object. Pickles, arq's default, are never opened.
    """
    try:
        # Strictly UTF-8 and numbers that JSON has: what is read here must be writable again.
        value = json.loads(data.decode(), parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise WireFormatError(f"not JSON: {error}; producers must use a JSON serializer, see docs/wire.md") from None
    if not isinstance(value, dict):
        raise WireFormatError(f"a JSON object is expected, not {type(value).__name__}; see docs/wire.md")
    return value


def job_payload(kind: str, arguments: dict[str, Any], enqueued_ms: int) -> bytes:
    """Return what is stored under ``arq:job:<id>``; ``enqueued_ms`` is Unix time in milliseconds."""
    return dumps({"t": None, "f": kind, "a": [], "k": arguments, "et": enqueued_ms})


def read_job(data: bytes) -> dict[str, Any]:
    """Read what is stored under ``arq:job:<id>``.

    Raises:
        WireFormatError: it is not a job; arq would be stopped by some of what this refuses.
    """
    value = loads(data)
    for name, (kind, rule) in JOB_FIELDS.items():
        if not isinstance(value.get(name), kind):
            raise WireFormatError(f"{name!r} of a job must be {rule}; see docs/wire.md")
    if not 0 <= value["et"] <= LATEST_MS:
        raise WireFormatError("'et' of a job must be Unix time in milliseconds; see docs/wire.md")
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
    state = RunState.CANCELLED if error.get("state") == RunState.CANCELLED else RunState.FAILED
    return WireResult(
        succeeded=False,
        state=state,
        report=None,
        error_type=str(error.get("type", "Error")),
        message=str(error.get("message", "")),
    )
