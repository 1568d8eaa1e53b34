"""Archive: rows that were soft-deleted long ago leave, in short transactions, proved before they are deleted."""

from jobs.archive_deleted.job import archive_deleted

__all__ = ["archive_deleted"]
