"""Which function runs which request, and how."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from holdfast.requests import ImportTasks, JobReport, JobRequest
from jobs.context import RunContext
from jobs.import_tasks import clean_up, import_tasks
from jobs.settings import JobSettings


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of work."""

    request_type: type[JobRequest[Any]]
    perform: Callable[[RunContext, Any], Awaitable[JobReport]]
    timeout_s: float
    """Seconds that one attempt may take. It goes on from its cursor when it is tried again."""
    max_attempts: int = 5
    """Attempts that are charged; interrupted and crashed ones are not."""
    clean_up: Callable[[JobSettings, Any], None] | None = None
    """Called once the run is over and has not failed; it may be called again, and must not mind."""

    @property
    def kind(self) -> str:
        """The name on the wire and in the ledger."""
        return self.request_type.kind


JOBS: dict[str, Job] = {
    job.kind: job for job in (Job(ImportTasks, import_tasks, timeout_s=24 * 3600.0, clean_up=clean_up),)
}
"""Every kind that this worker runs, by its name."""
