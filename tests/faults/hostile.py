"""Payloads and ids of ledgered kinds that anybody may have written: what cannot be kept, and what only looks so."""

import json
import time
from typing import Any

from holdfast.wire import MAX_UNIQUE_KEY

KIND = "trial_write"
LARGE = 50_000_000


def payload(**fields: Any) -> bytes:
    """A good payload of a trial's kind but for these fields."""
    whole = {"t": None, "f": KIND, "a": [], "k": {}, "et": time.time_ns() // 1_000_000, **fields}
    return json.dumps(whole).encode()


def note(text: str) -> bytes:
    """A payload whose request holds this JSON text as its note, as it is."""
    return payload(k={"note": "@"}).replace(b'"@"', text.encode())


def nested(depth: int) -> str:
    """JSON text of arrays in arrays."""
    return "[" * depth + "]" * depth


def refused_payloads() -> dict[str, bytes]:
    """Payloads that must end as failed or quarantined, with the reason, by what is wrong with them."""
    return {
        "50 MB": payload(k={"note": "x" * LARGE}),
        "nested 10,000 deep": note(nested(10_000)),
        "NUL in a text": note('"a\\u0000b"'),
        "NUL in a name": payload(k={"no\0te": 1}),
        "half a surrogate pair": note('"\\ud800"'),
        "half a surrogate pair in a name": note('{"\\udfff": 1}'),
        "NaN": note("NaN"),
        "Infinity": note("-Infinity"),
        "a number beyond a float": note("1e999"),
        "a number of 5,000 digits": note("9" * 5000),
        "a step that is no number": payload(k={"steps": "many"}),
        "an unknown field": payload(k={"no_such_field": 1}),
        "an unknown field that cannot be stored": payload(k={"no_such_field": float("1e308")}, u="\udcff"),
        "positional arguments": payload(a=[1, 2, 3]),
        "a unique key that is too long": payload(u="u" * (MAX_UNIQUE_KEY + 1)),
        "a unique key of 5,000 characters": payload(u="u" * 5000),
        "a unique key that is no text": payload(u={"u": 1}),
        "an empty unique key": payload(u=""),
        "a kind that nobody has": payload(f="no_such_kind"),
        "a kind of 300 characters": payload(f="k" * 300),
        "a time in the year 33,658": payload(et=10**15),
    }


def odd_payloads() -> dict[str, bytes]:
    """Payloads that are unusual and good: they must succeed, or say why not."""
    return {
        "nested 30 deep": note(nested(30)),
        "nested 100 deep": note(nested(100)),
        "nested 800 deep": note(nested(800)),
        "a number of 4,000 digits": note("9" * 4000),
        "a number of 20 digits": note("9" * 20),
        "a small number": note("1e-320"),
        "900 kB": payload(k={"note": "x" * 900_000}),
        "100,000 items": payload(k={"note": [0] * 100_000}),
        "a name of 10,000 characters": payload(k={"note": {"n" * 10_000: 1}}),
        "astral characters": payload(k={"note": "\U0001f418" * 100}),
        "the beginning of time": payload(et=0),
        "a text that looks like a NUL": note('"\\\\u0000"'),
        "a unique key with odd characters": payload(u="'; DROP TABLE job_runs; --\U0001f418"),
    }


BAD_IDS = {
    "not UTF-8": b"\xff\xfe\x80",
    "with a NUL": b"a\0b",
    "300 characters": b"i" * 300,
    "300 characters of 4 bytes": "\U0001f418".encode() * 300,
    "2 MB": b"i" * 2_000_000,
}
ODD_IDS = {
    "empty": b"",
    "newlines": b"a\r\nb",
    "a pattern": b"*",
    "Lua": b"'..redis.call('FLUSHALL')..'",
    "255 characters": b"i" * 255,
    "spaces at the end": b"a  ",
    "upper case": b"A",
    "lower case": b"a",
    "an accent": "á".encode(),
    "astral characters": "\U0001f418".encode() * 60,
    "a UUID of version 7 beyond the calendar": b"ffffffff-ffff-7fff-bfff-ffffffffffff",
    "a UUID of version 4": b"9b2b7d4e-7d0b-4e0e-9f3b-0d6f1a2b3c4d",
}
