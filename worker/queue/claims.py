"""Taking entries out of the queue, many at a time."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from holdfast import wire
from worker.queue import scripts
from worker.queue.scripts import QueueKeys

MAX_ID_BYTES = 4 * wire.MAX_RUN_ID
"""What a producer may have for an id, in UTF-8."""
WRONG_TYPE = -2
ENDED_BEFORE = -3


class ClaimLate(RedisError):  # noqa: N818
    """The call was held up on its way to Redis for so long that it was not done."""


@dataclass(slots=True, eq=False)
class Claimed:
    """One entry that this worker has leased."""

    keys: QueueKeys
    number: int
    """Which of this worker's claims it is: only that one is ended by its end."""
    raw_id: bytes
    job_id: str
    score: int
    """When it was due, Unix ms."""
    payload: bytes | None
    payload_bytes: int
    """The payload's size; larger than ``payload`` where it was over the limit and left in Redis. -1: missing,
    ``WRONG_TYPE``: not a string, ``ENDED_BEFORE``: missing, and there is a result."""
    job_try: int
    """How often it was started and came back, and once more."""
    aborted: bool
    id_problem: str
    """Why the id cannot be used; empty: it can."""
    ref: str
    """Id and function, for the log; the id alone until the payload is read."""
    ran_out: bool
    """This worker had it before and its lease ran out; perhaps it still runs here."""
    poison: str = ""
    """Why the entry is parked in quarantine; empty: it is not."""
    ending: bool = False
    """The job has ended, Redis is about to hear it."""
    went_back: bool = False
    """It ended by going back into the queue."""


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """How entries are leased."""

    token: bytes
    lease_ms: int
    in_progress_ms: int
    max_payload_bytes: int
    see_aborts: bool


class Claimer:
    """Claims from one queue, in one call."""

    def __init__(self, redis: Any, keys: QueueKeys, terms: LeaseTerms) -> None:
        self._script = redis.register_script(scripts.CLAIM)
        self.queue = keys.queue
        self._keys = keys
        self._patience_ms = terms.lease_ms / 3
        self._numbers = itertools.count(1)
        self.is_late = False
        """Whether the last answer was held up for so long that what it claimed may be another worker's by now."""
        self.saw_aborts = False
        """Whether the abort set held anything when this claimed something last."""
        self._ahead_ms: float | None = None  # Redis's clock minus this process's monotonic one
        self._arguments = (
            terms.token,
            terms.lease_ms,
            terms.in_progress_ms,
            1 if terms.see_aborts else 0,
            terms.max_payload_bytes,
        )

    async def claim(self, limit: int, job_ids: Sequence[bytes] = ()) -> list[Claimed]:
        """Lease up to ``limit`` due entries, or those of ``job_ids`` that are due and free.

        Raises:
            redis.exceptions.RedisError: Redis did not do it.
            ClaimLate: it came too late, leases may have run out meanwhile though their owners live.
        """
        limit = min(limit, scripts.MAX_ENTRIES)
        sent_ms = time.monotonic() * 1000
        latest = "" if self._ahead_ms is None else int(sent_ms + self._ahead_ms + self._patience_ms)
        number = next(self._numbers)
        arguments = [limit, *self._arguments, latest, number, *job_ids]
        answer = await self._script(keys=self._keys.all(), args=arguments)
        self._ahead_ms = answer[0] - sent_ms
        self.is_late = time.monotonic() * 1000 - sent_ms > self._patience_ms
        if len(answer) == 2:
            raise ClaimLate(f"a claim was held up for more than {self._patience_ms / 1000:.1f} s, it is made again")
        if len(answer) == 1:
            return []
        _, ids, scores, payloads, sizes, retries, aborts, run_out, some_aborted = answer
        self.saw_aborts = some_aborted == 1
        aborted = aborts or (None,) * len(ids)
        before = {raw_id: _whole(its) for raw_id, its in zip(run_out[::2], run_out[1::2], strict=True)}
        claims = []
        for at, raw_id in enumerate(ids):
            job_id, problem = _text(raw_id)
            claims.append(
                Claimed(
                    keys=self._keys,
                    number=before.get(raw_id, number),
                    raw_id=raw_id,
                    job_id=job_id,
                    score=_whole(scores[at]),
                    payload=payloads[at],
                    payload_bytes=sizes[at],
                    job_try=_whole(retries[at]) + 1,
                    aborted=aborted[at] is not None,
                    id_problem=problem,
                    ref=job_id,
                    ran_out=raw_id in before,
                )
            )
        return claims


def _text(raw_id: bytes) -> tuple[str, str]:
    if len(raw_id) > MAX_ID_BYTES:
        shown = raw_id[:60].decode(errors="backslashreplace")
        return f"{shown}...", f"the job id has {len(raw_id)} bytes, the limit is {MAX_ID_BYTES}"
    try:
        return raw_id.decode(), ""
    except UnicodeDecodeError:
        return raw_id.decode(errors="backslashreplace"), "the job id is not UTF-8"


def _whole(text: bytes | None) -> int:
    """Read a number that anybody may have written."""
    if text is None:
        return 0
    try:
        return int(text) if len(text) < 20 and text.isdigit() else int(float(text))
    except (ValueError, OverflowError):
        return 0
