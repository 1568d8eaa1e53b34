"""``import``: a file of tasks, from the command line."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import UUID

import click
from pydantic import ValidationError

from db.connection import get_async_session
from db.repositories.job_run import RunRow
from holdfast.requests import ImportReport, ImportTasks
from jobs.import_tasks.rejects import write_rejects
from jobs.import_tasks.source import inspect_source
from jobs.import_tasks.spool import spool
from jobs.sources import SourceError, open_source
from worker.cli.database import open_database
from worker.cli.enqueue import request_problem
from worker.cli.follow import enqueue_request, finish_run
from worker.cli.runs import exit_code_of
from worker.cli.terminal import Failure, async_command, json_option, load_settings, print_json, wrong_usage
from worker.logs import configure_logs
from worker.settings import Settings

REPORT_KEYS = [name for name in ImportReport.model_fields if name not in {"encoding", "dry_run"}]


@click.command(
    "import",
    epilog="Example: python -m worker import issues.csv --map external_key=issuekey --map title=summary "
    "--map metadata.points=points --user ada",
)
@click.argument("file")
@click.option("--map", "mapping", multiple=True, metavar="FIELD=COLUMN", help="Load COLUMN into FIELD. Repeatable.")
@click.option("--set", "constants", multiple=True, metavar="FIELD=VALUE", help="The same value in every row.")
@click.option("--user", metavar="NAME", help="The tasks' owner, made if missing.  [default: importer]")
@click.option("--create-users", is_flag=True, help="Make the users that a column mapped onto user names.")
@click.option("--key", metavar="COLUMN", help="Short for --map external_key=COLUMN.")
@click.option("--on-conflict", type=click.Choice(["skip", "update", "fail"]), help="A key is taken.  [default: skip]")
@click.option("--format", "format_", type=click.Choice(["csv", "ndjson"]), help="Detected if not given.")
@click.option("--encoding", metavar="NAME", help="Detected if not given.")
@click.option("--delimiter", metavar="CHAR", help="Detected if not given; \\t for a tab.")
@click.option("--batch-rows", type=click.IntRange(1, 10_000), metavar="N", help="Rows a transaction.  [default: 1000]")
@click.option("--max-rejects", metavar="N|P%", help="Fail when more rows are rejected. No limit if not given.")
@click.option("--rejects", "rejects_path", metavar="FILE", help="Write the rejected rows there.")
@click.option("--dry-run", is_flag=True, help="Do everything but commit.")
@click.option("--atomic", is_flag=True, help="All rows in one transaction.")
@click.option("--detach", is_flag=True, help="Enqueue and return.")
@json_option
@async_command
async def import_command(*, file: str, rejects_path: str | None, detach: bool, as_json: bool, **options: Any) -> None:
    """Import tasks from FILE (- for standard input): CSV or NDJSON, plain, .gz or .zst.

    Wrong rows are rejected and named, the good ones are loaded; rejected rows alone do not make it fail.
    """
    settings = load_settings(log_level=None if sys.stderr.isatty() is False else "warning")
    configure_logs(settings)
    request = build_import(file, options)
    request, spooled = hand_over(request, file, settings)
    run_id: UUID | None = None
    try:
        async with open_database(settings):
            run_id = await enqueue_request(settings, request)
            if detach:
                _print_detached(run_id, as_json=as_json)
                return
            run = await finish_run(settings, run_id)
            if rejects_path is not None:
                async with get_async_session(read_only=True) as session:
                    await write_rejects(session, run_id, Path(rejects_path))
    finally:
        if run_id is None and spooled is not None:
            spooled.unlink(missing_ok=True)
    _print_end(run, rejects_path, as_json=as_json)
    raise click.exceptions.Exit(exit_code_of(run))


def build_import(file: str, options: dict[str, Any]) -> ImportTasks:
    """Make the request from the command line's options.

    Raises:
        Failure: an option is wrong (exit code 2).
    """
    values: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, False, ())}
    values["mapping"] = _pairs("--map", options["mapping"])
    values["constants"] = _pairs("--set", options["constants"])
    if key := values.pop("key", None):
        values["mapping"]["external_key"] = key
    if "format_" in values:
        values["format"] = values.pop("format_")
    if values.get("delimiter") == "\\t":
        values["delimiter"] = "\t"
    if limit := values.pop("max_rejects", None):
        values |= _reject_limit(limit)
    try:
        return ImportTasks(source=file, **values)
    except ValidationError as error:
        raise wrong_usage(request_problem("import", error)) from None


def hand_over(request: ImportTasks, file: str, settings: Settings) -> tuple[ImportTasks, Path | None]:
    """Check the file against the request and bring it to where the worker may read it.

    Returns:
        The request with its source, and the spooled copy if one was made.

    Raises:
        SourceError: the file is missing, unreadable, or does not fit.
        OSError: the spool cannot be written.
    """
    if file == "-":
        copy = spool(sys.stdin.buffer, settings.spool_dir)
        try:
            with copy.open("rb") as spooled:
                inspect_source(request.model_copy(update={"source": "standard input"}), spooled)
        except BaseException:
            copy.unlink(missing_ok=True)
            raise
        return request.model_copy(update={"source": str(copy)}), copy
    with _open_for_user(file) as source:
        inspect_source(request, source)
        path = Path(file).absolute()
        with suppress(SourceError), open_source(str(path), settings.import_roots):
            return request.model_copy(update={"source": str(path)}), None
        source.seek(0)
        copy = spool(source, settings.spool_dir)
    return request.model_copy(update={"source": str(copy)}), copy


def _open_for_user(file: str) -> BinaryIO:
    """Open a file that the user named; it is the user's own right to name it, links included."""
    path = Path(file)
    try:
        if path.is_dir():
            raise wrong_usage(f"{file} is a directory: name a file")
        if path.exists() and not path.is_file():
            raise wrong_usage(f"{file} is not a regular file: read it through standard input, with -")
        return path.open("rb")
    except FileNotFoundError:
        raise wrong_usage(f"{file} does not exist: check the path") from None
    except (OSError, ValueError) as error:
        raise wrong_usage(f"{file} cannot be read: {error}") from None


def _pairs(option: str, words: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        field, separator, value = word.partition("=")
        if not separator or not field:
            raise wrong_usage(f"{option} {word!r} is not FIELD=VALUE: write it as {option} title=summary")
        if field in pairs:
            raise wrong_usage(f"{option} gives {field!r} twice: give it once")
        pairs[field] = value
    return pairs


def _reject_limit(text: str) -> dict[str, float | int]:
    try:
        if text.endswith("%"):
            return {"max_rejects_percent": float(text[:-1])}
        return {"max_rejects": int(text)}
    except ValueError:
        raise wrong_usage(f"--max-rejects {text!r} is neither a number of rows nor a percentage such as 5%") from None


def _print_detached(run_id: UUID, *, as_json: bool) -> None:
    if as_json:
        print_json({"run_id": str(run_id), "state": "waiting"})
    else:
        click.echo(f"run {run_id} is waiting; look at it with: python -m worker runs show {run_id}")


def _print_end(run: RunRow, rejects_path: str | None, *, as_json: bool) -> None:
    report = dict(run.report or run.counters or {})
    if rejects_path is not None and report.get("rejected"):
        report["rejects_file"] = rejects_path
    document = {"run_id": str(run.id), "state": run.state, **{key: report.get(key) for key in REPORT_KEYS}}
    if run.error:
        document["error"] = run.error
    if as_json:
        print_json(document)
        return
    for key, value in document.items():
        if key != "error" and value is not None:
            click.echo(f"{key:<14}{f'{value:,}' if isinstance(value, int | float) else value}")
    if run.error:
        raise Failure(run.error["message"])
    if run.state == "waiting":
        raise Failure(f"run {run.id} was interrupted and waits; `python -m worker run` goes on with it")
