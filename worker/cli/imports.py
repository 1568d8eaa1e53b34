"""``import``: a file of tasks, from the command line."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import click
from pydantic import ValidationError

from db.repositories.job_run import RunRow
from holdfast.errors import QueueUnavailable
from holdfast.requests import ImportReport, ImportTasks
from holdfast.states import RunState
from worker.cli.database import open_database
from worker.cli.enqueue import request_problem
from worker.cli.follow import enqueue_request, finish_run
from worker.cli.import_files import STANDARD_INPUT, check_rejects_path, hand_over, save_rejects
from worker.cli.runs import exit_code_of
from worker.cli.terminal import (
    Failure,
    configure_quiet_logs,
    expected_errors,
    json_option,
    load_settings,
    print_json,
    shown_path,
    wrong_usage,
)
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
@click.option("--key", metavar="COLUMN", help="Short for --map external_key=COLUMN; alone, the others go by name.")
@click.option("--on-conflict", type=click.Choice(["skip", "update", "fail"]), help="A key is taken.  [default: skip]")
@click.option("--restore-deleted", is_flag=True, help="Bring deleted tasks back whose keys the file has.")
@click.option("--format", "format_", type=click.Choice(["csv", "ndjson"]), help="Detected if not given.")
@click.option("--encoding", metavar="NAME", help="Detected if not given.")
@click.option("--delimiter", metavar="CHAR", help="Detected if not given; \\t for a tab.")
@click.option(
    "--batch-rows", type=click.IntRange(1, 10_000), metavar="N", help="The most rows a transaction.  [default: 1000]"
)
@click.option("--max-rejects", metavar="N|P%", help="Fail when more rows are rejected. No limit if not given.")
@click.option(
    "--rejects", "rejects_path", type=click.Path(path_type=Path), metavar="FILE", help="Write the rejected rows there."
)
@click.option("--dry-run", is_flag=True, help="Do everything but commit.")
@click.option("--atomic", is_flag=True, help="All rows in one transaction.")
@click.option("--detach", is_flag=True, help="Enqueue and return.")
@json_option
def import_command(*, file: str, rejects_path: Path | None, detach: bool, as_json: bool, **options: Any) -> None:
    """Import tasks from FILE (- for standard input): CSV or NDJSON, plain, .gz or .zst.

    Each column that has a field's name is loaded into that field, until --map names another field than external_key.
    Wrong rows are rejected and named, the good ones are loaded; rejected rows alone do not make it fail.
    """
    with expected_errors():
        settings = load_settings()
        configure_quiet_logs(settings)
        request = build_import(file, options)
        if rejects_path is not None:
            if detach:
                raise wrong_usage("--rejects and --detach exclude each other: the file is written at the run's end")
            check_rejects_path(rejects_path)
        # Outside the event loop, which would hold back a Ctrl-C while a large file is copied.
        request, spooled = hand_over(request, file, settings)
        handover = Handover(settings, request, STANDARD_INPUT if file == "-" else file)
        try:
            asyncio.run(_enqueue(handover, as_json) if detach else _import(handover, rejects_path, as_json))
        finally:
            if spooled is not None and not handover.is_needed:
                spooled.unlink(missing_ok=True)


@dataclass(slots=True)
class Handover:
    """A request on its way to a worker."""

    settings: Settings
    request: ImportTasks
    file: str
    """What the user calls it; the request may name a copy in the spool."""
    is_needed: bool = False
    """Whether a run may still read the file. The user has the original of one that was watched to its end."""

    async def enqueue(self) -> UUID:
        """Enqueue the request; returns the run's id."""
        self.is_needed = True
        try:
            return await enqueue_request(self.settings, self.request)
        except QueueUnavailable as error:
            self.is_needed = error.outcome == "unknown"
            raise


def build_import(file: str, options: Mapping[str, Any]) -> ImportTasks:
    """Make the request from the command line's options.

    Raises:
        Failure: an option is wrong (exit code 2).
    """
    values: dict[str, Any] = {name: value for name, value in options.items() if value not in (None, False, ())}
    values["mapping"] = _pairs("--map", options["mapping"])
    values["constants"] = _pairs("--set", options["constants"])
    if (key := values.pop("key", None)) is not None:
        if "external_key" in values["mapping"]:
            raise wrong_usage("--key and --map external_key=COLUMN are the same: give one of the two")
        values["mapping"]["external_key"] = key
    if "format_" in values:
        values["format"] = values.pop("format_")
    if values.get("delimiter") == "\\t":
        values["delimiter"] = "\t"
    if (limit := values.pop("max_rejects", None)) is not None:
        values |= _reject_limit(limit)
    try:
        return ImportTasks(source=file, **values)
    except ValidationError as error:
        raise wrong_usage(request_problem("import", error)) from None


async def _enqueue(handover: Handover, as_json: bool) -> None:
    async with open_database(handover.settings):
        run_id = await handover.enqueue()
    if as_json:
        print_json({"run_id": str(run_id), "state": RunState.WAITING.value})
    else:
        click.echo(f"run {run_id} is waiting; look at it with: python -m worker runs show {run_id}")


async def _import(handover: Handover, rejects_path: Path | None, as_json: bool) -> None:
    settings = handover.settings
    unsaved: Failure | None = None
    async with open_database(settings):
        run = await finish_run(settings, await handover.enqueue())
        handover.is_needed = not RunState(run.state).is_over
        if rejects_path is not None and RunState(run.state).is_over:
            try:
                await save_rejects(run, settings, rejects_path)
            except Failure as failure:
                unsaved, rejects_path = failure, None
    error = run.error and {**run.error, "message": run.error["message"].replace(handover.request.source, handover.file)}
    _print_end(run, error, _rejects_file(run, settings, rejects_path), as_json=as_json)
    if unsaved is not None:
        raise unsaved


def _rejects_file(run: RunRow, settings: Settings, asked_for: Path | None) -> str | None:
    counts = run.report or run.counters or {}
    if not counts.get("rejected"):
        return None
    if asked_for is not None:
        return str(asked_for)
    of_worker = settings.rejects_dir / f"{run.id}.csv"  # a run that failed has no report that names it
    return counts.get("rejects_file") or (str(of_worker) if of_worker.is_file() else None)


def _print_end(run: RunRow, error: dict[str, Any] | None, rejects_file: str | None, *, as_json: bool) -> None:
    report = dict(run.report or run.counters or {}) | {"rejects_file": rejects_file}
    document = {"run_id": str(run.id), "state": run.state, **{key: report.get(key) for key in REPORT_KEYS}}
    if error:
        document["error"] = error
    if as_json:
        print_json(document)
    else:
        if rejects_file is not None:
            document["rejects_file"] = shown_path(rejects_file)
        for key, value in document.items():
            if key != "error" and value is not None:
                click.echo(f"{key:<14}{f'{value:,}' if isinstance(value, int | float) else value}")
    if not RunState(run.state).is_over:
        raise Failure(f"run {run.id} was interrupted and waits; `python -m worker run` goes on with it")
    if exit_code_of(run):
        raise Failure((error or {}).get("message") or f"run {run.id} is {run.state}")


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
