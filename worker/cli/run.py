"""``run``: the worker."""

import click

from worker.cli.database import make_data_dir
from worker.cli.terminal import expected_errors, load_settings
from worker.logs import configure_logs, get_logger
from worker.process import run_worker
from worker.settings import Settings


@click.command(epilog="Example: python -m worker run --max-jobs 20 --queue urgent --queue arq:queue=15")
@click.option("--burst", is_flag=True, help="End as soon as nothing is due that may start here.")
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="Q[=SLOTS]",
    help="A queue to serve, and the most runs of it at the same time; repeated, the first has priority (QUEUES).",
)
@click.option("--max-jobs", type=int, metavar="N", help="Runs at the same time (MAX_JOBS).")
@click.option("--json", "as_json", is_flag=True, help="Log one JSON object a line (LOG_FORMAT=json).")
def run(*, burst: bool, queues: tuple[str, ...], max_jobs: int | None, as_json: bool) -> None:
    """Run the worker until SIGTERM or SIGINT ends it; running jobs are given SHUTDOWN_GRACE_S seconds."""
    asked = {"queues": ",".join(queues) or None, "max_jobs": max_jobs, "log_format": "json" if as_json else None}
    with expected_errors():
        settings = load_settings(**asked)
        configure_logs(settings)
        if notice := embedded_notice(settings):
            make_data_dir(settings)
            get_logger().warning(notice, data_dir=str(settings.holdfast_data_dir.absolute()))
        run_worker(settings, burst=burst)


def embedded_notice(settings: Settings) -> str:
    """Say what serves one machine only, and how to move on; empty when nothing does."""
    parts = []
    if settings.database_is_embedded:
        parts.append(("DATABASE_URL", "the database is a file"))
    if settings.queue_is_embedded:
        parts.append(("REDIS_URL", "the queue lives in this process"))
    if not parts:
        return ""
    names, facts = (" and ".join(words) for words in zip(*parts, strict=True))
    return f"{facts}, which serves one machine; move on by setting {names}"
