"""Slow statements are logged, with their duration and the run that asked, and without any value."""

import logging
import re
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from sqlalchemy.engine import Engine

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

    Of one whose rows are streamed, what its opening takes.

    Args:
        engine: the values of its statements are never logged, whatever they are.
        threshold_s: seconds; 0 logs nothing.
    """
    if threshold_s <= 0:
        return
    # Around the dialect's own calls: with SQLAlchemy's events around a cursor, a short statement costs a tenth more.
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(engine.dialect, name, _timed(getattr(engine.dialect, name), threshold_s))


def _timed(execute: Callable[..., None], threshold_s: float) -> Callable[..., None]:
    now = time.perf_counter

    def timed(cursor: Any, statement: str, *rest: Any, **named: Any) -> None:
        began = now()
        try:
            execute(cursor, statement, *rest, **named)
        except BaseException as failure:
            if (took_s := now() - began) > threshold_s:
                _log(statement, took_s, failure=failure)
            raise
        if (took_s := now() - began) > threshold_s:
            _log(statement, took_s)

    return timed


def _log(statement: str, duration_s: float, *, failure: BaseException | None = None) -> None:
    asker, shown = _asker.get(), redacted(statement)
    end = "" if failure is None else f", ended by {type(failure).__name__}"
    fields = {"duration_s": round(duration_s, 3), "asked_by": asker and str(asker), "statement": shown}
    text = "slow query: %.3f s%s%s: %s"
    logger.warning(text, duration_s, f" for {asker}" if asker else "", end, shown, extra=fields)
