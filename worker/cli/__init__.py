"""The command line. Each file holds the commands of one noun."""

import click

from worker.cli.adopt import adopt
from worker.cli.archive import archive
from worker.cli.archives import archives
from worker.cli.check import check
from worker.cli.controls import limits, scope_commands
from worker.cli.db import db
from worker.cli.demo import demo
from worker.cli.enqueue import enqueue
from worker.cli.imports import import_command
from worker.cli.run import run
from worker.cli.run_actions import cancel, retry
from worker.cli.runs import runs
from worker.cli.terminal import CommandLine
from worker.cli.workers import workers


@click.group(cls=CommandLine, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Holdfast: a background job worker for database work.

    Exit codes: 0 success; 1 a failed run, an unhealthy finding, or a server that cannot be reached; 2 wrong usage or
    configuration. Every command takes --json: one JSON document on stdout, logs on stderr.
    """


for action in (cancel, retry):
    runs.add_command(action)
queues, kinds = scope_commands("queue", "queues"), scope_commands("kind", "kinds")
for command in (
    run,
    check,
    enqueue,
    import_command,
    archive,
    archives,
    runs,
    queues,
    kinds,
    limits,
    workers,
    db,
    adopt,
    demo,
):
    main.add_command(command)
