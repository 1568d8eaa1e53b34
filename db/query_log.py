"""Slow statements are logged, with their duration and the run that asked, and without any value."""

import logging
import re
import time
from contextvars import ContextVar
from typing import Any, Final

from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext

LONGEST_STATEMENT: Final = 2000
"""Characters of a statement that are logged."""

logger = logging.getLogger("holdfast.database")

_asker: ContextVar[object] = ContextVar("holdfast_asker", default=None)
# Quoted text, with its own quotes doubled or escaped; numbers that stand alone.
_LITERALS: Final = re.compile(r"'(?:[^'\\]|''|\\.)*'?|(?<![\w$:])\d+(?:\.\d+)?\b")


def asked_by(asker: object) -> None:
    """Note for this task, and for those that it starts from now on, who asks the database.

    Args:
        asker: for a run its context; a web application may say its route. It is shown as text when a query is slow.
    """
    _asker.set(asker)


def redacted(statement: str) -> str:
    """Return a statement with ``?`` for each value that stands in its text, in one line, cut at a length."""
    shown = " ".join(_LITERALS.sub("?", statement).split())
    return shown if len(shown) <= LONGEST_STATEMENT else f"{shown[:LONGEST_STATEMENT]}..."


def log_slow_queries(engine: Engine, threshold_s: float) -> None:
    """Log each statement of an engine that takes longer, whether it succeeds, fails or is cancelled.

    Args:
        engine: the values of its statements are never logged, whatever they are.
        threshold_s: seconds; 0 logs nothing.
    """
    if threshold_s <= 0:
        return

    now = time.perf_counter

    def begin(*arguments: Any) -> None:
        if (context := arguments[4]) is not None:
            context._holdfast_began = now()  # noqa: SLF001 - SQLAlchemy's own recipe puts it here

    def end(*arguments: Any) -> None:
        context = arguments[4]
        if context is not None and (took_s := now() - context._holdfast_began) > threshold_s:  # noqa: SLF001
            _log(arguments[2], took_s)

    def fail(failure: ExceptionContext) -> None:
        began = getattr(failure.execution_context, "_holdfast_began", None)
        if began is not None and failure.statement is not None and (took_s := now() - began) > threshold_s:
            _log(failure.statement, took_s, failure=failure.original_exception)

    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "handle_error", fail)


def _log(statement: str, duration_s: float, *, failure: BaseException | None = None) -> None:
    asker, shown = _asker.get(), redacted(statement)
    end = "" if failure is None else f", ended by {type(failure).__name__}"
    fields = {"duration_s": round(duration_s, 3), "asked_by": asker and str(asker), "statement": shown}
    text = "slow query: %.3f s%s%s: %s"
    logger.warning(text, duration_s, f" for {asker}" if asker else "", end, shown, extra=fields)
