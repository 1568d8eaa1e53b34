"""The files that archives are written to: one row for each, made in the transaction that deletes its rows."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, Integer, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.types import UtcDateTime


class ArchivePart(Base):
    """One file of an archive run. What is not listed here was left by a worker that died before its commit."""

    __tablename__ = "archive_parts"

    run_id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True)
    """The run that wrote it; without a foreign key, for the ledger is pruned and the files stay."""
    number: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    table_name: Mapped[str] = mapped_column(String(255))
    file: Mapped[str] = mapped_column(String(255))
    """Its name below the run's folder in ``ARCHIVE_DIR``."""
    rows: Mapped[int] = mapped_column("row_count", Integer())
    """Named as no engine's word is: ROWS is reserved in MySQL."""
    bytes: Mapped[int] = mapped_column("byte_count", BigInteger())
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the file as it lies there, compressed."""
    written_at: Mapped[datetime] = mapped_column(UtcDateTime())
