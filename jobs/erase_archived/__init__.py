"""Erase: rows are deleted for good, wherever they lie, and never come back."""

from jobs.erase_archived.job import erase_archived

__all__ = ["erase_archived"]
