"""Errors as the user of the command line sees them: one line, the way out, the right exit code."""

import errno
import json

import click
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import OperationalError, ProgrammingError

from db.errors import DatabaseUnavailable
from db.migrate import SchemaOutdated
from holdfast.errors import QueueUnavailable
from jobs.sources import SourceError
from worker.cli.terminal import Failure, WrongSettings, async_command, load_settings, print_json
from worker.settings import Settings


def failure_of(error: BaseException) -> Failure:
    """Run a command that raises this; return what the user is told."""

    @async_command
    async def command() -> None:
        raise error

    with pytest.raises(Failure) as caught:
        command()
    return caught.value


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (SourceError("not_found", "source '/x' does not exist"), 2, "source '/x' does not exist"),
        (DatabaseUnavailable("DATABASE_URL x: no connection"), 1, "DATABASE_URL x: no connection"),
        (SchemaOutdated("run `python -m worker db upgrade`"), 1, "db upgrade"),
        (QueueUnavailable("Redis refused: x", outcome="refused"), 1, "Redis refused"),
        (RedisConnectionError("Error 111 connecting to localhost:1"), 1, "REDIS_URL: Error 111"),
        (OperationalError("SELECT 'canary'", {"p": "canary"}, Exception("database is locked\nx")), 1, "is locked"),
        (PermissionError(13, "Permission denied", "/data"), 1, "PermissionError: [Errno 13] Permission denied"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_expected_error_is_one_line(
    error: Exception, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = failure_of(error)
    failure.show()
    out, err = capsys.readouterr()
    assert (failure.exit_code, out) == (code, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert "canary" not in line


def test_an_interruption_is_no_traceback() -> None:
    assert failure_of(KeyboardInterrupt()).exit_code == 130


@pytest.mark.parametrize("bug", [KeyError("x"), ProgrammingError("SELEC", {}, Exception("syntax error"))])
def test_a_bug_is_not_hidden(bug: Exception) -> None:
    @async_command
    async def command() -> None:
        raise bug

    with pytest.raises(type(bug)):
        command()


def test_the_ends_of_click_pass() -> None:
    @async_command
    async def command() -> None:
        raise click.exceptions.Exit(3)

    with pytest.raises(click.exceptions.Exit) as caught:
        command()
    assert caught.value.exit_code == 3


def test_a_message_of_several_lines_becomes_one() -> None:
    assert Failure("one\n  two\tthree").message == "one two three"


def test_a_wrong_setting_is_named_with_value_rule_and_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_JOBS", "zero")
    with pytest.raises(Failure) as caught:
        load_settings()
    assert caught.value.exit_code == 2
    assert caught.value.message == (
        "MAX_JOBS=zero should be a valid integer, unable to parse string as an integer; "
        "correct MAX_JOBS in the environment or in .env"
    )


def test_an_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_JOBS", "3")
    assert load_settings(max_jobs=4, queue_name=None).max_jobs == 4


def test_every_problem_is_named_and_no_secret_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "DATABASE_URL": "oracle://ada:canary@db/x",
        "REDIS_URL": "http://:canary@db",
        "MAX_JOBS": "0",
        "IMPORT_ROOTS": "imports",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WrongSettings) as caught:
        load_settings()
    problems = caught.value.problems
    assert {problem.setting for problem in problems} == set(wrong)
    assert caught.value.message.startswith(f"{problems[0].setting}={problems[0].value} ")
    assert "canary" not in caught.value.message + "".join(map(str, problems))
    assert not any("\n" in str(problem) for problem in problems)


def test_json_is_one_document_with_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"title": "\u00e4\U0001f600\n", "at": Settings(_env_file=None).holdfast_data_dir})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "\u00e4\U0001f600" in out
    assert json.loads(out)["title"] == "\u00e4\U0001f600\n"


@pytest.mark.parametrize(
    ("words", "advice"),
    [("database or disk is full", "free some space"), ("database is locked", "try again when the database is well")],
)
def test_a_database_that_fails_is_named(words: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:canary@h/x")
    failure = failure_of(OperationalError("UPDATE x", {}, Exception(words)))
    assert failure.message == f"DATABASE_URL postgresql+asyncpg://u:***@h/x: {words}; {advice}"


def test_a_full_disk_is_named() -> None:
    failure = failure_of(OSError(errno.ENOSPC, "No space left on device", "/spool/x"))
    assert failure.message == "OSError: [Errno 28] No space left on device: '/spool/x'; free some space"
