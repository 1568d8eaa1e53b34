"""Many requests on their way into the queue: checked before anything is sent, then sent in calls of bounded size."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

from holdfast import wire
from holdfast.errors import PayloadTooLarge
from holdfast.ids import uuid7_texts
from holdfast.requests import JobRequest

CALL_RUNS = 500
CALL_BYTES = 8 * 1024 * 1024
"""Payload bytes that one call carries, if it is more than one payload: Redis does nothing else meanwhile."""

HandleT = TypeVar("HandleT")


@dataclass(frozen=True, slots=True)
class Enqueued(Generic[HandleT]):
    """What ``enqueue_many`` did."""

    runs: tuple[HandleT, ...]
    """A handle for each request, in their order; also for those whose id was taken."""
    taken: tuple[str, ...]
    """The ids that were taken already, by earlier runs or within the call: nothing was enqueued for these requests."""


class Entry(NamedTuple):
    """One run that is to be enqueued."""

    at: int
    """Its position among the requests."""
    run_id: str
    payload: bytes
    ledger: bool


def due_score(at: datetime | None) -> str:
    """Return when a run is due in Unix milliseconds, or nothing for now, which is Redis's.

    Raises:
        ValueError: ``at`` has no time zone.
    """
    if at is None:
        return ""
    if at.tzinfo is None:
        raise ValueError(f"at={at.isoformat()} has no time zone; give one, for example datetime.now(UTC)")
    return str(int(at.astimezone(UTC).timestamp() * 1000))


def check_run_id(run_id: str) -> None:
    """Refuse what the ledger could not keep as an id.

    Raises:
        ValueError: it is empty, too long, holds a NUL, or is no text that can be sent.
    """
    if not (isinstance(run_id, str) and 0 < len(run_id) <= wire.MAX_RUN_ID and _is_storable(run_id)):
        shown = f"{str(run_id)[:40]!r}"
        rule = f"it must be text of 1 to {wire.MAX_RUN_ID} characters without NUL; use a UUID version 7"
        raise ValueError(f"run_id={shown}: {rule}")


def _is_storable(text: str) -> bool:
    return "\x00" not in text and (text.isascii() or text.encode(errors="ignore").decode() == text)


def request_payload(
    request: JobRequest[Any], enqueued_ms: int, *, unique_key: str | None = None, max_bytes: int
) -> bytes:
    """Return a request as it stands in Redis.

    Args:
        request: what is to be done.
        enqueued_ms: Unix time in milliseconds.
        unique_key: what is to be unique among the live runs of its kind.
        max_bytes: the limit.

    Raises:
        PayloadTooLarge: it has more bytes than that.
        ValueError: the unique key is empty, too long or no text that can be stored, or the request holds such text.
        TypeError: it is no request.
    """
    if not isinstance(request, JobRequest):
        raise TypeError(f"{str(request)[:80]} is no request: pass one, as ImportTasks(source=...)")
    if unique_key is not None:
        _check_unique_key(unique_key)
    try:
        arguments = request.payload_json()
    except ValueError as error:  # half a surrogate pair, or a value of a type that pydantic does not know
        raise ValueError(f"the {request.kind} request cannot be written as JSON: {error}; change that value") from error
    payload = wire.job_payload(request.kind, arguments, enqueued_ms, unique_key=unique_key)
    if len(payload) > max_bytes:
        raise PayloadTooLarge(request.kind, len(payload), max_bytes)
    if b"\\u0000" in payload and wire.NUL_ESCAPE.search(payload):
        raise ValueError(f"the {request.kind} request holds a NUL character (U+0000): take it out")
    return payload


def _check_unique_key(unique_key: str) -> None:
    shown = f"unique_key={unique_key[:40]!r}"
    if not 0 < len(unique_key) <= wire.MAX_UNIQUE_KEY:
        rule = f"it needs 1 to {wire.MAX_UNIQUE_KEY}; use a hash of what is longer"
        raise ValueError(f"{shown} of {len(unique_key)} characters: {rule}")
    if not _is_storable(unique_key):
        raise ValueError(f"{shown}: it must be text without NUL and half surrogate pairs")


class Batch:
    """Requests with their ids and payloads.

    Args:
        requests: what is to be done.
        run_ids: an id for each, or None for new ones.
        unique_keys: a key or None for each, or None for no keys.

    Raises:
        ValueError: there are not as many ids or keys as requests.
    """

    def __init__(
        self,
        requests: Sequence[JobRequest[Any]],
        run_ids: Sequence[str] | None,
        unique_keys: Sequence[str | None] | None,
    ) -> None:
        for name, values in (("run_ids", run_ids), ("unique_keys", unique_keys)):
            if values is not None and len(values) != len(requests):
                raise ValueError(f"{name} has {len(values)} items for {len(requests)} requests: give one for each")
        self.requests = requests
        self.run_ids = uuid7_texts(len(requests)) if run_ids is None else list(run_ids)
        self._unique_keys = unique_keys
        self._may_repeat = run_ids is not None
        self.repeated: list[int] = []
        """Positions of requests whose id stands before them in the batch."""

    async def entries(self, enqueued_ms: int, max_bytes: int) -> list[Entry]:
        """Make the payloads, each distinct request's once; those for the ledger come first.

        Raises:
            PayloadTooLarge, ValueError, TypeError: as ``request_payload`` and ``check_run_id``.
        """
        made: dict[tuple[int, str | None], bytes] = {}
        entries: list[Entry] = []
        light: list[Entry] = []
        seen: set[str] = set()
        for at, (request, run_id) in enumerate(zip(self.requests, self.run_ids, strict=True)):
            if at % CALL_RUNS == 0:
                await asyncio.sleep(0)  # others may run meanwhile
            if self._may_repeat:
                check_run_id(run_id)
                if run_id in seen:
                    self.repeated.append(at)
                    continue
                seen.add(run_id)
            unique_key = None if self._unique_keys is None else self._unique_keys[at]
            payload = made.get((id(request), unique_key))
            if payload is None:
                payload = request_payload(request, enqueued_ms, unique_key=unique_key, max_bytes=max_bytes)
                made[id(request), unique_key] = payload
            (entries if request.ledger else light).append(Entry(at, run_id, payload, request.ledger))
        return entries + light


def calls(entries: Sequence[Entry]) -> Iterator[Sequence[Entry]]:
    """Cut a batch into calls to Redis."""
    start, size = 0, 0
    for at, entry in enumerate(entries):
        size += len(entry.payload)
        if at > start and (at - start >= CALL_RUNS or size > CALL_BYTES):
            yield entries[start:at]
            start, size = at, len(entry.payload)
    if entries:
        yield entries[start:]
