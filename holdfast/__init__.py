"""What other services install to enqueue work: typed requests, a client and the results.

Needs redis and pydantic. ``holdfast.outbox`` needs the extra ``[outbox]`` (SQLAlchemy) and is imported by name.
"""

from holdfast.client import Client, SyncClient
from holdfast.errors import (
    HoldfastError,
    QueueUnavailable,
    RunCancelled,
    RunExists,
    RunFailed,
    RunNotFound,
    WireFormatError,
)
from holdfast.progress import Progress
from holdfast.requests import ImportReport, ImportTasks, JobReport, JobRequest
from holdfast.run import Run
from holdfast.states import RunState

__all__ = [
    "Client",
    "HoldfastError",
    "ImportReport",
    "ImportTasks",
    "JobReport",
    "JobRequest",
    "Progress",
    "QueueUnavailable",
    "Run",
    "RunCancelled",
    "RunExists",
    "RunFailed",
    "RunNotFound",
    "RunState",
    "SyncClient",
    "WireFormatError",
]
