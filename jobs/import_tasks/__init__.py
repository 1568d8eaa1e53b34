"""The job ``import_tasks``: load tasks from a CSV or NDJSON file, resumable at every batch."""

from jobs.import_tasks.job import import_tasks
from jobs.import_tasks.spool import clean_up

__all__ = ["clean_up", "import_tasks"]
