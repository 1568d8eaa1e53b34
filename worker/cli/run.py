"""``run``: the worker."""

import click

from worker.cli.terminal import async_command, load_settings
from worker.logs import configure_logs, get_logger
from worker.process import serve

EMBEDDED_NOTICE = (
    "nothing is configured: the database is a file and the queue lives in this process, for one machine; "
    "move on by setting DATABASE_URL and REDIS_URL"
)


@click.command(epilog="Example: python -m worker run --max-jobs 20")
@click.option("--burst", is_flag=True, help="End as soon as nothing is due.")
@click.option("--queue", "queue_name", metavar="Q", help="The queue's key in Redis (QUEUE_NAME).")
@click.option("--max-jobs", type=int, metavar="N", help="Runs at the same time (MAX_JOBS).")
@click.option("--json", "as_json", is_flag=True, help="Log one JSON object a line (LOG_FORMAT=json).")
@async_command
async def run(*, burst: bool, queue_name: str | None, max_jobs: int | None, as_json: bool) -> None:
    """Run the worker until SIGTERM or SIGINT ends it; running jobs are given SHUTDOWN_GRACE_S seconds."""
    settings = load_settings(queue_name=queue_name, max_jobs=max_jobs, log_format="json" if as_json else None)
    configure_logs(settings)
    if settings.queue_is_embedded or settings.database_is_embedded:
        get_logger().warning(EMBEDDED_NOTICE, data_dir=str(settings.holdfast_data_dir.absolute()))
    await serve(settings, burst=burst)
