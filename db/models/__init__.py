"""The tables, one a file."""

from db.models.archive_part import ArchivePart
from db.models.control import Control
from db.models.erasure import Erasure
from db.models.import_reject import ImportReject
from db.models.installation import Installation
from db.models.job_attempt import JobAttempt
from db.models.job_run import NEXT_STATES, JobRun
from db.models.job_run_range import JobRunRange
from db.models.task import TASKS_ARCHIVE, Task, TaskStatus
from db.models.user import User
from db.models.worker_heartbeat import WorkerHeartbeat, WorkerState

__all__ = [
    "NEXT_STATES",
    "TASKS_ARCHIVE",
    "ArchivePart",
    "Control",
    "Erasure",
    "ImportReject",
    "Installation",
    "JobAttempt",
    "JobRun",
    "JobRunRange",
    "Task",
    "TaskStatus",
    "User",
    "WorkerHeartbeat",
    "WorkerState",
]
