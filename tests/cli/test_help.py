"""Every command explains itself, and wrong usage is one line."""

import shlex
from collections.abc import Iterator

import click
import pytest

from tests.cli.command import PROGRAM, invoke
from worker.cli import main


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(commands())
GROUPS = [(name,) for name, command in main.commands.items() if isinstance(command, click.Group)]


def test_the_commands() -> None:
    assert {" ".join(path) for path in ALL} == {
        "run",
        "check",
        "enqueue",
        "import",
        "archive",
        "archives search",
        "archives adopt",
        "archives list",
        "archives restore",
        "archives erase",
        "runs list",
        "runs show",
        "runs cancel",
        "runs retry",
        "queues list",
        "queues pause",
        "queues resume",
        "kinds list",
        "kinds pause",
        "kinds resume",
        "limits list",
        "limits set",
        "workers list",
        "adopt",
        "db upgrade",
        "db check",
        "db current",
        "db downgrade",
        "db reset",
        "db seed",
        "demo",
    }


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_each_command_has_help_with_an_example_and_json(path: tuple[str, ...]) -> None:
    command = ALL[path]
    ended = invoke(*path, "--help")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: {PROGRAM} {' '.join(path)} ")
    assert "--json" in ended.out
    assert command.epilog is not None
    example = shlex.split(command.epilog)
    assert example[0] == "Example:"
    program = example.index("-m")
    assert tuple(example[program + 1 : program + 2 + len(path)]) == ("worker", *path)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{parameter.name} of {path} is not explained"


@pytest.mark.parametrize("path", [(), *GROUPS], ids=" ".join)
def test_each_group_has_help(path: tuple[str, ...]) -> None:
    ended = invoke(*path, "-h")
    assert ended.code == 0
    assert "Commands:" in ended.out
    bare = invoke(*path)
    assert (bare.code, bare.out) == (2, "")
    assert bare.err == ended.out


LONG = "k" * 101
LONG_SHOWN = f"'{LONG[:40]}' has 101 characters"
WRONG_USAGE = {
    "bogus": "No such command 'bogus'; see `python -m worker --help`",
    "runs bogus": "No such command 'bogus'; see `python -m worker runs --help`",
    "import": "Missing argument 'FILE'; see `python -m worker import --help`",
    "import a.csv b.csv": "Got unexpected extra argument (b.csv); see `python -m worker import --help`",
    "import a.csv --mpa title=t": "No such option '--mpa'. (Did you mean one of: '--format', '--map'?);"
    " see `python -m worker import --help`",
    "import a.csv --map": "Option '--map' requires an argument",
    "run --max-jobs many": "Invalid value for '--max-jobs': 'many' is not a valid integer;"
    " see `python -m worker run --help`",
    "run --max-jobs 0": "MAX_JOBS=0 should be greater than or equal to 1;"
    " correct MAX_JOBS in the environment or in .env",
    "run --queue high --queue high=2": "QUEUES=high,high=2 names high twice: name each queue once, the most urgent one"
    " first; correct QUEUES in the environment or in .env",
    "--bogus": "No such option '--bogus'; see `python -m worker --help`",
    "runs list --since 0500-01-01": "--since '0500-01-01' is not of the years 1000 to 9999: the database keeps"
    " no other",
    f"runs list --queue {LONG}": f"{LONG_SHOWN}: a queue has a name of 1 to 100 characters",
    f"queues pause {LONG}": f"{LONG_SHOWN}: a queue has a name of 1 to 100 characters",
    f"kinds resume {LONG}": f"{LONG_SHOWN}: a kind has a name of 1 to 100 characters",
    f"limits set kind {LONG} 3": f"{LONG_SHOWN}: a kind has a name of 1 to 100 characters",
}


@pytest.mark.parametrize("words", WRONG_USAGE)
def test_wrong_usage_is_one_line(words: str) -> None:
    ended = invoke(*words.split())
    assert ended.code == 2
    assert ended.line == WRONG_USAGE[words]


@pytest.mark.parametrize("words", [("queues", "pause"), ("kinds", "pause"), ("limits", "set", "queue")])
def test_a_name_is_not_empty(words: tuple[str, ...]) -> None:
    ended = invoke(*words, "")
    assert (ended.code, "'' has 0 characters: a " in ended.line) == (2, True)


@pytest.mark.parametrize(
    "words", ["kinds pause", "runs list --kind", "run --queue", "enqueue import_tasks source=/a --unique-key"]
)
def test_words_are_text(words: str) -> None:
    ended = invoke(*words.split(), "\udcff")
    assert (ended.code, ended.line) == (2, "'\\udcff' is no UTF-8: write it as text")
