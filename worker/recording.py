"""Answers of the ledger that must not be missed: an admission that is committed, an end that is to be."""

import asyncio
import time

from arq.worker import Retry

from db.errors import first_line, is_transient, is_unstorable
from worker.groups import Answer, T
from worker.ledger import Admitted
from worker.logs import Logger
from worker.retries import Outcome, stated
from worker.runtime import Runtime

AGAIN_S = 5.0
REFUSED_PAUSE_S = 1.0
RECORD_PATIENCE_S = 60.0
"""Seconds for which the end of an attempt is offered to a database that is away, before the run is begun again."""


async def settled(runtime: Runtime, answer: Answer[T]) -> tuple[T, asyncio.CancelledError | None]:
    """Wait for an answer of the ledger; a cancellation is kept back until it has come.

    Returns:
        The answer, and the cancellation that came meanwhile.

    Raises:
        asyncio.CancelledError: a second one, at the end of the worker.
    """
    kept: asyncio.CancelledError | None = None
    while True:
        try:
            return await answer, kept
        except asyncio.CancelledError as cancelled:
            if answer.is_abandoned or (kept is not None and runtime.is_draining):
                raise
            kept = cancelled


async def record_finished(runtime: Runtime, admitted: Admitted, outcome: Outcome, logger: Logger) -> Outcome:
    """Commit the attempt's end to the ledger (I2), patiently; the job's own effects are committed already.

    A cancellation comes too late for what has ended: that is recorded and told all the same. An end that the ledger
    refuses for good is recorded as a failure that says so: begun again, the run would only end there once more.

    Raises:
        arq.worker.Retry: the ledger did not take it; the run is taken up again from its cursor later.
        asyncio.CancelledError: a second one, at the end of the worker; the end may be recorded or not.
    """
    try:
        recorded, _ = await settled(runtime, runtime.ledger.finish(admitted, outcome))
    except Exception as error:  # noqa: BLE001 - looked at there
        logger.warning("the end of the run cannot be recorded yet", error=first_line(error))
        patiently = Answer.of(_record_patiently(runtime, admitted, outcome, error, logger=logger))
        recorded, _ = await settled(runtime, patiently)
    return recorded


async def _record_patiently(
    runtime: Runtime, admitted: Admitted, outcome: Outcome, error: Exception, *, logger: Logger
) -> Outcome:
    deadline, failures = time.monotonic() + RECORD_PATIENCE_S, 0
    is_plain = was_refused = False
    while True:
        if is_transient(error):
            if time.monotonic() > deadline:
                raise Retry(defer=AGAIN_S) from error
            failures += 1
            await asyncio.sleep(min(5.0, 0.1 * 2**failures))
        elif not is_plain and outcome.name != "interrupted" and (was_refused or is_unstorable(error)):
            logger.error("the ledger refuses the end of the run, so it has failed", exc_info=error)
            outcome = Outcome("failed", error=stated("unstorable", f"its end cannot be stored: {first_line(error)}"))
            is_plain = True
        elif not was_refused:
            was_refused = True  # it may be for a reason of the moment (a migration, say)
            await asyncio.sleep(REFUSED_PAUSE_S)
        else:
            logger.error("the end of the run cannot be recorded", exc_info=error)
            raise Retry(defer=AGAIN_S) from error
        try:
            return await runtime.ledger.finish(admitted, outcome)
        except Exception as again:  # noqa: BLE001 - looked at above
            error = again
