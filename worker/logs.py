"""Logs: one line per event on stderr, for eyes or as JSON; a record is a short sentence and its fields."""

import logging
import sys
from typing import Any
from uuid import UUID

import structlog

from holdfast.errors import RunFailed
from worker.settings import Settings


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
    global _base, _level
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
    _base, _level = structlog.get_logger().bind(), level
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


class Logger:
    """Writes lines that have the same fields. structlog hears of it when there is one: most runs write none."""

    __slots__ = ("_fields",)

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields

    def bind(self, **fields: Any) -> "Logger":
        """Return a logger that adds more fields."""
        return Logger({**self._fields, **fields})

    @property
    def writes_info(self) -> bool:
        """Whether ``info`` writes at all."""
        return _level <= logging.INFO

    def debug(self, sentence: str, **fields: Any) -> None:
        """Write what only those who look for a fault want to know."""
        if _level <= logging.DEBUG:
            self._bound().debug(sentence, **_shown(fields))

    def info(self, sentence: str, **fields: Any) -> None:
        """Write what has happened as it should."""
        if _level <= logging.INFO:
            self._bound().info(sentence, **_shown(fields))

    def warning(self, sentence: str, **fields: Any) -> None:
        """Write what has gone wrong and is dealt with."""
        if _level <= logging.WARNING:
            self._bound().warning(sentence, **_shown(fields))

    def error(self, sentence: str, **fields: Any) -> None:
        """Write what somebody has to look at."""
        self._bound().error(sentence, **_shown(fields))

    def exception(self, sentence: str, **fields: Any) -> None:
        """Write an error, with the traceback of the exception that is being handled."""
        self._bound().exception(sentence, **_shown(fields))

    def _bound(self) -> structlog.stdlib.BoundLogger:
        # Binding structlog's own lazy logger makes a writer with a lock each time.
        base = _base if _base is not None and structlog.is_configured() else structlog.get_logger()
        bound: structlog.stdlib.BoundLogger = base.bind(**_shown(self._fields))
        return bound


def _shown(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, UUID) else value for name, value in fields.items()}


_base: structlog.stdlib.BoundLogger | None = None
_level = logging.NOTSET


def get_logger(**fields: Any) -> Logger:
    """Return a logger that adds ``fields`` to each of its lines."""
    return Logger(fields)
