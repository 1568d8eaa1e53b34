"""Logging as it was: what configures it in this process keeps nothing of it for the tests behind it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from worker import logs


@contextmanager
def logging_restored() -> Iterator[None]:
    """Undoes `configure_logs`, whose handlers write to a stderr that is gone when its test has ended."""
    root, arq = logging.getLogger(), logging.getLogger("arq.worker")
    handlers, level, filters = root.handlers[:], root.level, arq.filters[:]
    base, least = logs._base, logs._level
    try:
        yield
    finally:
        root.handlers[:], arq.filters[:] = handlers, filters
        root.setLevel(level)
        logs._base, logs._level = base, least
        structlog.reset_defaults()
