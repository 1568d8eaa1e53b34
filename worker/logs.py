"""Logs: one line per event on stderr, for eyes or as JSON; a record is a short sentence and its fields."""

import logging
import sys
from typing import Any

import structlog

from holdfast.errors import RunFailed
from worker.settings import Settings

Logger = structlog.stdlib.BoundLogger


class _WithoutExpectedFailures(logging.Filter):
    """arq logs a traceback for each failed run; ours are logged once, by name, where they are classified."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, RunFailed)


class _Writer(structlog.WriteLogger):
    """Drops what cannot be written, as the standard library's handlers do: no run ends because of a full disk."""

    def msg(self, message: str) -> None:
        try:  # noqa: SIM105 - suppress() costs more than all else here, for each line
            super().msg(message)
        except (OSError, ValueError):
            pass

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg


def configure_logs(settings: Settings) -> None:
    """Set up structlog and the standard library's logging alike, on stderr."""
    global _base  # noqa: PLW0603 - one set of logs a process, as structlog itself has
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    as_json = settings.log_format == "json"
    rendering = _json_rendering() if as_json else _console_rendering()
    level = logging.DEBUG if settings.debug else logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[*shared, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Writer(sys.stderr),
    )
    _base = structlog.get_logger().bind()
    handler = logging.StreamHandler(sys.stderr)
    without_internals = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=[without_internals, *rendering], foreign_pre_chain=shared)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING) if not settings.debug else logging.DEBUG)
    arq_logger = logging.getLogger("arq.worker")
    arq_logger.filters[:] = [_WithoutExpectedFailures()]


# Both without the frames' local variables, which structlog shows by default: connect() of a driver holds the password.
def _json_rendering() -> list[Any]:
    as_dicts = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    return [structlog.processors.ExceptionRenderer(as_dicts), structlog.processors.JSONRenderer(default=str)]


def _console_rendering() -> list[Any]:
    plain = structlog.dev.plain_traceback
    return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=plain)]


_base: Logger | None = None


def get_logger(**fields: Any) -> Logger:
    """Return a logger that adds ``fields`` to each of its lines."""
    # Binding structlog's own lazy logger makes a writer with a lock each time; a run binds several.
    base = _base if _base is not None and structlog.is_configured() else structlog.get_logger()
    logger: Logger = base.bind(**fields)
    return logger
