"""What the jobs are told. The environment (and ``.env``) is read here and in no other place of ``jobs``."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from db.settings import DatabaseSettings

Days = Annotated[float, Field(ge=0, le=36_500)]


class JobSettings(DatabaseSettings):
    """The database's settings and those of the jobs; each name in capitals is the environment variable."""

    import_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders from which imports may read, absolute, separated by ``:``. None by default: a producer that can reach
    Redis could otherwise have any file of the worker's machine read. The spool is always allowed."""

    archive_retention_days: Days = 90.0
    """Days since their deletion after which rows are due to be archived."""
    archive_retention_days_by_table: Annotated[dict[str, Days], Field(default_factory=dict)]
    """Other days for some tables, as JSON: ``{"tasks": 365}``."""
    archive_dir: Path | None = None
    """Where archives in files go, absolute; made with mode 0700. Default: ``archives`` under ``HOLDFAST_DATA_DIR``.
    Workers on several machines need one that they share."""

    throttle_replica_lag_s: Annotated[float, Field(gt=0)] = 5.0
    """Long jobs pause while a replica is further behind than this."""
    throttle_lock_waits: Annotated[int, Field(ge=1)] = 5
    """Long jobs pause while at least so many sessions of the database wait for locks."""
    throttle_others_per_s: Annotated[float, Field(ge=0)] = 100.0
    """While others write at least so many transactions a second, long jobs work for ``THROTTLE_SHARE`` of the time.
    0: always for all of it."""
    throttle_share: Annotated[float, Field(ge=0.01, le=1)] = 0.25
    """The part of the time that a long job takes while others are at work: at 0.25 it rests after each batch for three
    times as long as that took, and the batches are a quarter as long."""
    throttle_free_connections: Annotated[int, Field(ge=0)] = 1
    """Long jobs pause while fewer connections of this process's pool are free, its overflow included. 0: never."""

    @field_validator("import_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("import_roots")
    @classmethod
    def _are_absolute(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for root in value:
            if not root.is_absolute():
                raise ValueError(f"{str(root)!r} is relative but must be absolute: write the folder's whole path")
        return value

    @field_validator("archive_dir")
    @classmethod
    def _is_absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError(f"{str(value)!r} is relative but must be absolute: write the folder's whole path")
        return value

    def archive_days_of(self, table: str) -> float:
        """Return the days after which a table's deleted rows are due."""
        return self.archive_retention_days_by_table.get(table, self.archive_retention_days)

    @property
    def archives_dir(self) -> Path:
        """Where archives in files go."""
        return self.archive_dir or self.holdfast_data_dir.absolute() / "archives"

    @property
    def spool_dir(self) -> Path:
        """Where the command line leaves files for the worker."""
        return self.holdfast_data_dir.absolute() / "spool"

    @property
    def rejects_dir(self) -> Path:
        """Where imports write the rows that they rejected."""
        return self.holdfast_data_dir.absolute() / "rejects"
