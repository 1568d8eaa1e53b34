"""Changing runs by their ids and states, and touching no other runs."""

from typing import Final

from sqlalchemy import update

from holdfast.outbox import job_runs

_KEY: Final = "FORCE INDEX (PRIMARY)"

UPDATE_BY_ID: Final = update(job_runs).with_hint(_KEY, dialect_name="mysql").with_hint(_KEY, dialect_name="mariadb")
"""To be used where a condition names ids and a state.

Where few runs are in the state, the optimizer of MySQL and MariaDB may look for that: it locks every run that has it on
the way, and waits for those that somebody else has locked. Ids alone need no hint.
"""
