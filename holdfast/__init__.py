"""What other services install to enqueue work: typed requests, a client and the results.

Needs redis and pydantic. ``holdfast.outbox`` needs the extra ``[outbox]`` (SQLAlchemy) and is imported by name.
"""

from holdfast.batches import Enqueued
from holdfast.client import Client
from holdfast.errors import (
    HoldfastError,
    PayloadTooLarge,
    QueueUnavailable,
    RunCancelled,
    RunExists,
    RunFailed,
    RunNotFound,
    WireFormatError,
)
from holdfast.progress import Progress
from holdfast.requests import (
    ArchiveDeleted,
    ArchiveReport,
    EraseArchived,
    EraseReport,
    ImportReport,
    ImportTasks,
    JobReport,
    JobRequest,
    RestoreArchived,
    RestoreReport,
)
from holdfast.run import Run
from holdfast.states import RunState
from holdfast.sync import SyncClient, SyncRun

__all__ = [
    "ArchiveDeleted",
    "ArchiveReport",
    "Client",
    "Enqueued",
    "EraseArchived",
    "EraseReport",
    "HoldfastError",
    "ImportReport",
    "ImportTasks",
    "JobReport",
    "JobRequest",
    "PayloadTooLarge",
    "Progress",
    "QueueUnavailable",
    "RestoreArchived",
    "RestoreReport",
    "Run",
    "RunCancelled",
    "RunExists",
    "RunFailed",
    "RunNotFound",
    "RunState",
    "SyncClient",
    "SyncRun",
    "WireFormatError",
]
