"""Changing runs by their ids, and touching no others."""

from typing import Final

from sqlalchemy import update

from holdfast.outbox import job_runs

_KEY: Final = "FORCE INDEX (PRIMARY)"

UPDATE_BY_ID: Final = update(job_runs).with_hint(_KEY, dialect_name="mysql").with_hint(_KEY, dialect_name="mariadb")
"""To be used where a condition names the ids.

Where it names a state as well, and few runs are in that, the optimizer of MySQL and MariaDB may look for the state: it
locks every run that has it on the way, and waits for those that somebody else has locked.
"""
