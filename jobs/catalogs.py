"""The mapped tables, those of plugins included."""

import db.models  # noqa: F401 - registers the models
from db.archives.catalog import Catalog
from jobs.registry import load_jobs
from jobs.settings import JobSettings


def open_catalog(settings: JobSettings) -> Catalog:
    """Return what may be archived; the plugins' models are known once their modules are imported.

    Raises:
        PluginError: a plugin cannot be used.
    """
    load_jobs(settings)
    return Catalog.of()
