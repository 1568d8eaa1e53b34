"""``enqueue``: any job, by its kind."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import click
from pydantic import ValidationError

from holdfast.requests import JobRequest
from jobs.registry import load_jobs
from worker.cli.database import open_database
from worker.cli.follow import enqueue_request, finish_run
from worker.cli.runs import exit_code_of, run_document, show_run
from worker.cli.terminal import (
    async_command,
    configure_quiet_logs,
    json_option,
    load_settings,
    print_json,
    read_instant,
    storable_instant,
    wrong_usage,
)
from worker.settings import Settings


@click.command(epilog="Example: python -m worker enqueue import_tasks source=/imports/tasks.csv user=ada --wait")
@click.argument("kind")
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--wait", is_flag=True, help="Wait for the end of the run.")
@click.option("--at", metavar="TIME", help="When it is due: ISO 8601 with an offset.")
@click.option("--in", "in_seconds", type=float, metavar="SECONDS", help="Due so many seconds from now.")
@click.option("--unique-key", metavar="K", help="End as the duplicate of a live run of this kind with the same key.")
@json_option
@async_command
async def enqueue(  # noqa: PLR0913 - a flag each
    *,
    kind: str,
    fields: tuple[str, ...],
    wait: bool,
    at: str | None,
    in_seconds: float | None,
    unique_key: str | None,
    as_json: bool,
) -> None:
    """Enqueue a run of KIND. A value that is JSON (a number, true, {...}) is read as JSON, any other as text."""
    settings = load_settings()
    request = build_request(settings, kind, fields)
    due_at = _due_at(at, in_seconds)
    configure_quiet_logs(settings)
    async with open_database(settings):
        try:
            run_id = await enqueue_request(settings, request, at=due_at, unique_key=unique_key)
        except ValueError as error:
            raise wrong_usage(str(error).replace("unique_key=", "--unique-key=", 1)) from None
        if not wait:
            _say(as_json, {"run_id": str(run_id), "state": "waiting"}, f"run {run_id} is waiting")
            return
        run = await finish_run(settings, run_id)
        if as_json:
            print_json(run_document(run))
        else:
            show_run(run)
        raise click.exceptions.Exit(exit_code_of(run))


def build_request(settings: Settings, kind: str, fields: tuple[str, ...]) -> JobRequest[Any]:
    """Make the request of a kind from ``FIELD=VALUE`` words.

    Raises:
        Failure: the kind is unknown or a field does not fit (exit code 2).
    """
    jobs = load_jobs(settings)
    if kind not in jobs:
        raise wrong_usage(f"KIND {kind!r} is unknown: use one of {', '.join(sorted(jobs))}")
    values: dict[str, Any] = {}
    for word in fields:
        name, separator, text = word.partition("=")
        if not separator or not name:
            raise wrong_usage(f"{word!r} is not FIELD=VALUE: write it as source=/imports/tasks.csv")
        if name in values:
            raise wrong_usage(f"{name!r} is given twice: give it once")
        values[name] = _json_or_text(text)
    try:
        return jobs[kind].request_type.model_validate(values)
    except ValidationError as error:
        raise wrong_usage(request_problem(kind, error)) from None


def request_problem(kind: str, error: ValidationError) -> str:
    """Return the first problem of an invalid request in one line."""
    first = error.errors(include_url=False, include_context=False)[0]
    place, value = ".".join(str(part) for part in first["loc"]), first.get("input")
    # The rules of whole objects name the part that is wrong themselves.
    shown = "" if first["type"] == "missing" or isinstance(value, dict) else f"={value!r}"[:200]
    return ": ".join(part for part in (kind, place + shown, first["msg"].removeprefix("Value error, ")) if part)


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _due_at(at: str | None, in_seconds: float | None) -> datetime | None:
    if at is not None and in_seconds is not None:
        raise wrong_usage("--at and --in exclude each other: give one")
    if in_seconds is not None:
        try:
            instant = datetime.now(UTC) + timedelta(seconds=in_seconds)
        except (OverflowError, ValueError):
            raise wrong_usage(f"--in {in_seconds:g} leads to no date: give seconds, such as 3600") from None
        return storable_instant(f"--in {in_seconds:g}", instant)
    return None if at is None else read_instant("--at", at)


def _say(as_json: bool, document: dict[str, Any], line: str) -> None:
    if as_json:
        print_json(document)
    else:
        click.echo(line)
