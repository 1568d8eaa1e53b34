"""The log: one line per event on stderr, in two forms, without what must not be in it."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from holdfast.errors import RunFailed
from tests.logging_restored import logging_restored
from worker.logs import configure_logs, get_logger
from worker.settings import Settings


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    with logging_restored():
        yield


def configured(**values: Any) -> None:
    configure_logs(Settings(_env_file=None, **values))


def fail_with_secret() -> None:
    password = "canary-91"
    raise ValueError(f"no connection for {len(password)} reasons")


def test_json_is_one_object_a_line_with_the_runs_names(capsys: pytest.CaptureFixture[str]) -> None:
    configured(log_format="json")
    get_logger(run_id="r", kind="import_tasks").bind(attempt=2).info("run\nstarted", fence=3, value=object)
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    record = json.loads(line)
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "run\nstarted",
        "level": "info",
        "run_id": "r",
        "kind": "import_tasks",
        "attempt": 2,
        "fence": 3,
        "value": "<class 'object'>",
    }


def test_the_console_is_one_line_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    configured()
    get_logger(run_id="r", kind="import_tasks", attempt=1).warning("run retry", error="a\nb")
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "[warning  ] run retry" in line
    assert "run_id=r" in line
    assert "error='a\\nb'" in line
    assert "\x1b" not in line


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_records_of_libraries_look_like_ours(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configured(log_format=log_format)
    logging.getLogger("some.library").warning("slow %s", "answer")
    logging.getLogger("some.library").info("chatter")
    (line,) = capsys.readouterr().err.splitlines()
    assert "slow answer" in line
    assert (json.loads(line)["level"] == "warning") if log_format == "json" else ("[warning  ]" in line)


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("foreign", [False, True])
def test_a_traceback_has_no_local_variables(log_format: str, foreign: bool, capsys: pytest.CaptureFixture[str]) -> None:
    configured(log_format=log_format)
    logger: Any = logging.getLogger("some.library") if foreign else get_logger(run_id="r")
    try:
        fail_with_secret()
    except ValueError:
        logger.exception("unexpected")
    err = capsys.readouterr().err
    assert "no connection for 9 reasons" in err
    assert "fail_with_secret" in err
    assert "canary" not in err
    if log_format == "json":
        (line,) = err.splitlines()
        assert json.loads(line)["exception"][0]["exc_type"] == "ValueError"


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({}, ["info", "warning", "error"]),
        ({"log_level": "debug"}, ["debug", "info", "warning", "error"]),
        ({"log_level": "error"}, ["error"]),
        ({"log_level": "error", "debug": True}, ["debug", "info", "warning", "error"]),
    ],
)
def test_levels(values: dict[str, Any], shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    configured(log_format="json", **values)
    for level in ("debug", "info", "warning", "error"):
        getattr(get_logger(), level)("word")
    assert [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()] == shown


def test_arqs_traceback_of_an_expected_failure_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    configured(log_format="json")
    arq = logging.getLogger("arq.worker")
    for error in (RunFailed("r", "missing_column", "no column"), ValueError("a bug")):
        arq.error("job failed", exc_info=error)
    (line,) = capsys.readouterr().err.splitlines()
    assert "a bug" in line


def test_a_second_configuration_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    configured(log_format="json")
    configured(log_format="json")
    logging.getLogger("some.library").error("once")
    assert len(capsys.readouterr().err.splitlines()) == 1
