"""Which function runs which request, and how."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from db.plugins import PluginError, import_plugin
from holdfast.requests import ArchiveDeleted, EraseArchived, ImportTasks, JobReport, JobRequest, RestoreArchived
from jobs.archive_deleted import archive_deleted
from jobs.context import RunContext
from jobs.erase_archived import erase_archived
from jobs.import_tasks import clean_up, import_tasks
from jobs.restore_archived import restore_archived
from jobs.retry_policy import RetryPolicy
from jobs.settings import JobSettings

KIND_NAME = re.compile(r"[^\s\x00]{1,100}")
"""What the ledger's column takes; it has no spaces, which ``db.repositories.live_keys`` relies on."""


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of work."""

    request_type: type[JobRequest[Any]]
    perform: Callable[[RunContext, Any], Awaitable[JobReport]]
    timeout_s: float
    """Seconds that one attempt may take. It goes on from its cursor when it is tried again."""
    retries: RetryPolicy = field(default_factory=RetryPolicy)
    clean_up: Callable[[JobSettings, Any], None] | None = None
    """Called once the run is over and has not failed; it may be called again, and must not mind."""

    @property
    def ledger(self) -> bool:
        """Whether its runs are kept in the ledger, as the request says; see ``JobRequest.ledger``."""
        return self.request_type.ledger

    @property
    def kind(self) -> str:
        """The name on the wire and in the ledger."""
        return self.request_type.kind


_ROOM_AGAIN = RetryPolicy(by_error={OSError: RetryPolicy()})
"""A full disk may have room again later."""
BUILT_IN = (
    Job(ImportTasks, import_tasks, timeout_s=24 * 3600.0, clean_up=clean_up),
    Job(ArchiveDeleted, archive_deleted, timeout_s=24 * 3600.0, retries=_ROOM_AGAIN),
    Job(RestoreArchived, restore_archived, timeout_s=4 * 3600.0, retries=_ROOM_AGAIN),
    Job(EraseArchived, erase_archived, timeout_s=4 * 3600.0, retries=_ROOM_AGAIN),
)


def load_jobs(settings: JobSettings) -> dict[str, Job]:
    """Return every kind that this worker runs, by its name: the built-in ones and those of the plugins.

    Raises:
        PluginError: a plugin cannot be imported, brings nothing, or brings a kind that cannot be or is there already.
    """
    jobs = {job.kind: job for job in BUILT_IN}
    for name in settings.holdfast_plugins:
        for job in _jobs_of(name):
            if (problem := _problem_of(job)) is not None:
                raise PluginError(f"HOLDFAST_PLUGINS={name}: {problem}")
            if job.kind in jobs:
                raise PluginError(f"HOLDFAST_PLUGINS={name}: the kind {job.kind} is there already; rename one")
            jobs[job.kind] = job
    return jobs


def _problem_of(job: Any) -> str | None:
    if not isinstance(job, Job):
        return f"{job!r} in JOBS is no Job; list a Job for each kind"
    kind = getattr(job.request_type, "kind", None)
    if not isinstance(kind, str) or KIND_NAME.fullmatch(kind) is None:
        has = "no kind" if kind is None else f"the kind {kind!r}"
        rule = "give it a kind: ClassVar[str] of 1 to 100 characters without spaces"
        return f"{job.request_type.__name__} has {has}; {rule}"
    return None if job.timeout_s > 0 else f"{kind} has timeout_s={job.timeout_s:g}; give it more than 0 seconds"


def _jobs_of(name: str) -> tuple[Job, ...]:
    module = import_plugin(name)
    try:
        return tuple(module.JOBS)
    except (AttributeError, TypeError) as error:
        if not hasattr(module, "JOBS") and (hasattr(module, "MODELS") or hasattr(module, "MIGRATIONS")):
            return ()
        advice = "put a JOBS of Job, MODELS or MIGRATIONS into it"
        raise PluginError(f"HOLDFAST_PLUGINS={name}: {error}; {advice}") from error
