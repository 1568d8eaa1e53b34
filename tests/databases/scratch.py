"""Models that only the tests have, and their tables on the engine under test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, MetaData, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Base, BaseModel, FullAuditModel, SoftDeleteModel
from db.connection import DatabaseManager
from db.mixins import UUIDFieldMixin, UUIDStringTimestampMixin
from db.types import NAMING_CONVENTION

SCRATCH = MetaData(naming_convention=NAMING_CONVENTION)
"""Apart from the application's tables, which the migrations make."""


class ScratchShelf(BaseModel):
    metadata = SCRATCH

    name: Mapped[str] = mapped_column(String(50), unique=True, info={"translatable": True})
    secret: Mapped[str | None] = mapped_column(info={"private": True})
    opened_at: Mapped[datetime | None]
    books: Mapped[list["ScratchBook"]] = relationship(
        back_populates="shelf", cascade="all, delete-orphan", passive_deletes=True, order_by="ScratchBook.title"
    )


class ScratchBook(FullAuditModel):
    metadata = SCRATCH

    title: Mapped[str] = mapped_column(String(100), unique=True, info={"translatable": True})
    blurb: Mapped[str | None] = mapped_column(info={"translatable": True})
    shelf_id: Mapped[UUID | None] = mapped_column(ForeignKey(ScratchShelf.id, ondelete="CASCADE"))
    shelf: Mapped[ScratchShelf | None] = relationship(back_populates="books")
    loans: Mapped[list["ScratchLoan"]] = relationship(back_populates="book", passive_deletes=True, lazy="selectin")


class ScratchLoan(SoftDeleteModel):
    metadata = SCRATCH

    book_id: Mapped[UUID] = mapped_column(ForeignKey(ScratchBook.id, ondelete="CASCADE"))
    book: Mapped[ScratchBook] = relationship(back_populates="loans")


class ScratchTicket(UUIDStringTimestampMixin, Base):
    metadata = SCRATCH

    text: Mapped[str]


class ScratchHTTPEntry(UUIDFieldMixin, Base):
    metadata = SCRATCH

    number: Mapped[int] = mapped_column(primary_key=True)


@asynccontextmanager
async def scratch_tables(manager: DatabaseManager) -> AsyncIterator[None]:
    """Makes the tables, and takes them away again."""
    async with manager.engine.begin() as connection:
        await connection.run_sync(SCRATCH.create_all)
    try:
        yield
    finally:
        async with manager.engine.begin() as connection:
            await connection.run_sync(SCRATCH.drop_all)


def values_of(rows: Any, name: str) -> list[Any]:
    """Returns one attribute of each row, sorted."""
    return sorted(getattr(row, name) for row in rows)
