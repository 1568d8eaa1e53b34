"""The catalogue of poison: payloads and ids that anybody who can write to Redis may have written."""

import json
import pickle
import time
from pathlib import Path
from typing import Any

from holdfast import wire


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


def payload(**fields: Any) -> bytes:
    """A good payload but for these fields; those that are None are left out."""
    whole = {"t": 1, "f": "quick", "a": [], "k": {}, "et": time.time_ns() // 1_000_000, **fields}
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def bad_payloads(bomb: Path) -> dict[str, bytes]:
    """Payloads that must be refused, by what is wrong with them."""
    return {
        "empty": b"",
        "garbage": bytes(range(256)),
        "truncated": payload()[:-9],
        "pickle": pickle.dumps({"t": 1, "f": "quick", "a": (), "k": {}, "et": 1}),
        "pickled bomb": pickle.dumps(Bomb(bomb)),
        "not an object": b"[1, 2, 3]",
        "null": b"null",
        "no function": payload(f=...),
        "no time": payload(et=...),
        "function is a list": payload(f=["quick"]),
        "function is an object": payload(f={"quick": 1}),
        "function is a number": payload(f=7),
        "function is null": payload(f=None),
        "arguments are an object": payload(a={"0": 1}),
        "arguments are text": payload(a="abc"),
        "names are a list": payload(k=[1]),
        "names are null": payload(k=None),
        "time is text": payload(et="now"),
        "time is negative": payload(et=-1),
        "time is beyond the calendar": payload(et=10**30),
        "a number of 5,000 digits": b'{"t":1,"f":"quick","a":[' + b"9" * 5000 + b'],"k":{},"et":1}',
        "nested 10,000 deep": b'{"t":1,"f":"quick","a":' + b"[" * 10_000 + b"]" * 10_000 + b',"k":{},"et":1}',
        "50 MB": payload(a=["x" * 50_000_000]),
        "NUL bytes": b"\0" * 100,
        "not UTF-8": b'{"t":1,"f":"quick\xff","a":[],"k":{},"et":1}',
    }


def refused_payloads() -> dict[str, bytes]:
    """Payloads that are well formed and whose function cannot be called; their results say so."""
    return {
        "unknown function": payload(f="no_such_function"),
        "dunder function": payload(f="__import__"),
        "empty function": payload(f=""),
        "unknown name": payload(f="gated", k={"no_such_argument": 1}),
        "name of the context": payload(k={"ctx": 1}),
        "too many arguments": payload(f="gated", a=[1, 2, 3, 4]),
        "a huge try": payload(t=10**18),
    }


BAD_IDS = {
    "not UTF-8": b"\xff\xfe\x80",
    "half a character": "ä".encode()[:1],
    "2 MB long": b"i" * 2_000_000,
}
ODD_IDS = {
    "NUL": b"a\0b",
    "newlines": b"a\r\nb",
    "empty": b"",
    "pattern": b"*",
    "Lua": b"'..redis.call('FLUSHALL')..'",
    "the longest": ("\U0001f600" * wire.MAX_RUN_ID).encode(),
}
