"""What the jobs are told. The environment (and ``.env``) is read here and in no other place of ``jobs``."""

import os
from pathlib import Path
from typing import Annotated

from pydantic import field_validator
from pydantic_settings import NoDecode

from db.settings import DatabaseSettings


class JobSettings(DatabaseSettings):
    """The database's settings and those of the jobs; each name in capitals is the environment variable."""

    import_roots: Annotated[tuple[Path, ...], NoDecode] = ()
    """Folders from which imports may read, absolute, separated by ``:``. None by default: a producer that can reach
    Redis could otherwise have any file of the worker's machine read. The spool is always allowed."""

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

    @property
    def spool_dir(self) -> Path:
        """Where the command line leaves files for the worker."""
        return self.holdfast_data_dir.absolute() / "spool"

    @property
    def rejects_dir(self) -> Path:
        """Where imports write the rows that they rejected."""
        return self.holdfast_data_dir.absolute() / "rejects"
