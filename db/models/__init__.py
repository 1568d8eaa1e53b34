"""The tables, one a file."""

from db.models.control import Control
from db.models.import_reject import ImportReject
from db.models.installation import Installation
from db.models.job_attempt import JobAttempt
from db.models.job_run import NEXT_STATES, JobRun
from db.models.task import Task, TaskStatus
from db.models.user import User
from db.models.worker_heartbeat import WorkerHeartbeat, WorkerState

__all__ = [
    "NEXT_STATES",
    "Control",
    "ImportReject",
    "Installation",
    "JobAttempt",
    "JobRun",
    "Task",
    "TaskStatus",
    "User",
    "WorkerHeartbeat",
    "WorkerState",
]
