"""Claims that stock arq workers have left in Redis: they have no lease, and would stand until their key expires."""

from collections.abc import Collection
from typing import Any

from holdfast import wire
from holdfast.errors import WireFormatError

SOON_MS = 5000
"""An entry that a stock worker holds may be due in the future: our own workers put it a second away."""
AT_ONCE = 1000
CLAIM = b"1"
"""What stock arq writes; our own workers write their token."""


async def free_dead(redis: Any, queue: str, kinds: Collection[str], *, running_job_ids: Collection[str]) -> int:
    """Take away the claims of stock workers that died between claim and admission.

    A living worker that stands at that very point loses nothing: the ledger admits one of the two.

    Args:
        redis: arq's connection.
        queue: the queue's key.
        kinds: the kinds with a ledger; of any other a claim in Redis is all that there is.
        running_job_ids: the job ids that the ledger knows to be running.

    Returns:
        How many claims were taken away.
    """
    seconds, _ = await redis.time()
    latest_ms = seconds * 1000 + SOON_MS
    found: list[bytes] = await redis.zrangebyscore(queue, "-inf", latest_ms, start=0, num=AT_ONCE)
    ids = [raw.decode(errors="replace") for raw in found]
    suspects = [job_id for job_id in ids if job_id not in running_job_ids]
    if not suspects:
        return 0
    claims = await redis.mget([wire.IN_PROGRESS_KEY + job_id for job_id in suspects])
    claimed = [job_id for job_id, claim in zip(suspects, claims, strict=True) if claim == CLAIM]
    if not claimed:
        return 0
    payloads = await redis.mget([wire.JOB_KEY + job_id for job_id in claimed])
    dead = [job_id for job_id, payload in zip(claimed, payloads, strict=True) if kind_of(payload) in kinds]
    return int(await redis.delete(*(wire.IN_PROGRESS_KEY + job_id for job_id in dead))) if dead else 0


def kind_of(payload: bytes | None) -> str | None:
    """Return the kind that a payload asks for; None where there is none that can be read."""
    try:
        return None if payload is None else str(wire.read_job(payload)["f"])
    except WireFormatError:
        return None
