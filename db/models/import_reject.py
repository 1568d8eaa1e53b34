"""The rows of an import file that were not loaded."""

from uuid import UUID

from sqlalchemy import Integer, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.types import long_text_type


class ImportReject(Base):
    """One rejected row; its line makes it unique within its run."""

    __tablename__ = "import_rejects"

    run_id: Mapped[UUID] = mapped_column(Uuid(), primary_key=True)
    line: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    """The physical line of the file on which the row begins, from 1."""
    column: Mapped[str | None] = mapped_column("column_name", String(255))
    code: Mapped[str] = mapped_column(String(50))
    reason: Mapped[str] = mapped_column(long_text_type())
    raw: Mapped[str] = mapped_column(long_text_type())
