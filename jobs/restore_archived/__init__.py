"""Restore: rows come back from the archives with their children, whole or not at all."""

from jobs.restore_archived.job import restore_archived

__all__ = ["restore_archived"]
