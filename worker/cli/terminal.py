"""What every command shares: settings, errors in one line, JSON, exit codes."""

import asyncio
import functools
import json
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

import click
from pydantic import ValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from db.errors import DatabaseUnavailable, first_line, is_denied, is_transient
from db.migrate import SchemaOutdated
from db.plugins import PluginError
from db.urls import masked
from holdfast.errors import HoldfastError, QueueUnavailable
from holdfast.outbox import EARLIEST_YEAR
from jobs.sources import SourceError
from worker.checks import RIGHTS_ADVICE, Problem
from worker.embedded import EmbeddedQueueInUse
from worker.logs import configure_logs
from worker.served_queues import LONGEST_NAME
from worker.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")

SECRET_SETTINGS = frozenset(
    {"database_url", "database_replica_url", "database_direct_url", "postgres_password", "redis_url"}
)

INTERRUPTED_CODE = 130
"""The exit code after Ctrl-C, as shells have it: 128 and the number of SIGINT."""

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


class Failure(click.ClickException):
    """An error of ours: one line on stderr and an exit code."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(" ".join(message.split()))
        self.exit_code: int = exit_code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        """Write the line."""
        click.echo(f"error: {self.message}", file=file or sys.stderr)


def wrong_usage(message: str) -> Failure:
    """Return the error for wrong usage or configuration (exit code 2)."""
    return Failure(message, exit_code=2)


class CommandLine(click.Group):
    """A group whose usage errors, and those of its commands, are one line."""

    def make_context(self, info_name: str | None, args: list[str], *more: Any, **extra: Any) -> click.Context:
        """Parse the group's own options; all words of the command line are here, and must be text."""
        with _usage_in_one_line():
            for word in args:
                if word.encode(errors="ignore").decode() != word:
                    raise wrong_usage(f"{word!r} is no UTF-8: write it as text")
            return super().make_context(info_name, args, *more, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Parse and run the command."""
        with _usage_in_one_line():
            return super().invoke(ctx)


@contextmanager
def _usage_in_one_line() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = "" if error.ctx is None else f"; see `{error.ctx.command_path} --help`"
        raise wrong_usage(error.format_message().rstrip(".") + command) from None


class WrongSettings(Failure):
    """Settings that cannot be used (exit code 2): the line is of the first problem, ``problems`` are all of them."""

    def __init__(self, problems: Sequence[Problem], message: str) -> None:
        super().__init__(message, exit_code=2)
        self.problems = problems


def load_settings(**overrides: Any) -> Settings:
    """Read the settings.

    Raises:
        WrongSettings: some are wrong; the line names the first one, its value, the rule and what to do.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        problems = _setting_problems(error)
        first = problems[0]
        raise WrongSettings(problems, f"{first.setting}={first.value} {first.rule}; {first.advice}") from None
    except (OSError, UnicodeDecodeError) as error:
        rule, advice = f"cannot be read: {error}", "make it UTF-8 text that this user may read"
        problem = Problem(".env", str(Path(".env").absolute()), rule, advice)
        raise WrongSettings([problem], f".env {rule}; {advice}") from None


def configure_quiet_logs(settings: Settings) -> None:
    """Set up the logs of a command that says itself how its run goes: errors only, unless the user asked for more."""
    asked = "log_level" in settings.model_fields_set or settings.debug
    configure_logs(settings if asked else settings.model_copy(update={"log_level": "error"}))


def _setting_problems(error: ValidationError) -> list[Problem]:
    problems = []
    for one in error.errors(include_url=False, include_context=False):
        name = str(one["loc"][0]) if one["loc"] else "settings"
        value = "***" if name in SECRET_SETTINGS else str(one.get("input"))
        rule = one["msg"].removeprefix("Value error, ").replace("Input should", "should")
        advice = f"correct {name.upper()} in the environment or in .env"
        problems.append(Problem(name.upper(), value, rule, advice))
    return problems


def whole_name(settings: Settings, scope: str, name: str) -> str:
    """Return the name of a queue or kind that a user has typed as the ledger has it.

    Raises:
        Failure: no column takes it.
    """
    whole = settings.key_of(name) if scope == "queue" and name else name
    if not 0 < len(whole) <= LONGEST_NAME:
        rule = f"a {scope} has a name of 1 to {LONGEST_NAME} characters"
        raise wrong_usage(f"{whole[:40]!r} has {len(whole)} characters: {rule}")
    return whole


def read_instant(option: str, text: str, *, default_zone: tzinfo | None = None) -> datetime:
    """Read a time as a user writes it; returns it in UTC.

    Raises:
        Failure: it is none, has no offset and there is no default, or lies beyond what the database keeps.
    """
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None and default_zone is None:
            raise wrong_usage(f"{option} {text!r} has no offset: write it as {text}Z or {text}+01:00")
        instant = (instant if instant.tzinfo else instant.replace(tzinfo=default_zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise wrong_usage(f"{option} {text!r} is no time: write it as 2026-01-31T08:30:00+01:00") from None
    return storable_instant(f"{option} {text!r}", instant)


def storable_instant(said: str, instant: datetime) -> datetime:
    """Return an instant of a user's if the database can keep it.

    Raises:
        Failure: it cannot.
    """
    if instant.year < EARLIEST_YEAR:
        raise wrong_usage(f"{said} is not of the years {EARLIEST_YEAR} to 9999: the database keeps no other")
    return instant


def async_command(command: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Run a command's coroutine and turn every expected error into one line and an exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with expected_errors():
            return asyncio.run(command(*args, **kwargs))

    return wrapped


@contextmanager
def expected_errors() -> Iterator[None]:
    """Turn every expected error of the block into one line and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        raise Failure("interrupted", exit_code=INTERRUPTED_CODE) from None
    except Exception as error:  # noqa: BLE001 - bugs are raised again
        raise_failure(error)


def raise_failure(error: Exception) -> NoReturn:
    """Raise an error as a ``Failure`` if it is one that users meet; as itself if it is a bug."""
    if isinstance(error, click.ClickException | click.exceptions.Exit | click.Abort) or _wants_tracebacks():
        raise error
    if isinstance(error, PluginError):
        raise wrong_usage(str(error)) from None
    if isinstance(error, SourceError):
        raise wrong_usage(error.message) from None
    if isinstance(error, QueueUnavailable) and not str(error).startswith("REDIS_URL"):
        advice = "" if "; " in str(error) else "; start the server or correct the URL"
        raise Failure(f"REDIS_URL: {str(error).rstrip('.')}{advice}") from None
    if isinstance(error, DatabaseUnavailable | SchemaOutdated | EmbeddedQueueInUse | HoldfastError):
        raise Failure(str(error)) from None
    if isinstance(error, RedisError):
        raise Failure(f"REDIS_URL: {first_line(error)}; start the server or correct the URL") from None
    if is_denied(error):
        raise Failure(f"DATABASE_URL {_shown_database()}: {first_line(error)}; {RIGHTS_ADVICE}") from None
    if isinstance(error, SQLAlchemyError) and is_transient(error):
        advice = _space_advice(error) or "; try again when the database is well"
        raise Failure(f"DATABASE_URL {_shown_database()}: {first_line(error)}{advice}") from None
    if is_transient(error) or isinstance(error, OSError):
        raise Failure(f"{type(error).__name__}: {first_line(error)}{_space_advice(error)}") from None
    raise error


def _space_advice(error: Exception) -> str:
    text = str(error).lower()
    return "; free some space" if "disk is full" in text or "no space left" in text else ""


def _shown_database() -> str:
    try:
        return masked(Settings().url)
    except (ValidationError, OSError, UnicodeDecodeError):
        return ""


def _wants_tracebacks() -> bool:
    try:
        return Settings().debug
    except (ValidationError, OSError, UnicodeDecodeError):
        return False


def shown_path(path: str | Path) -> str:
    """Return a path as the user would write it here: relative if it lies below the current directory."""
    path, here = Path(path), Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def print_json(document: Any) -> None:
    """Write one JSON document to stdout."""
    click.echo(json.dumps(document, default=str, ensure_ascii=False))
