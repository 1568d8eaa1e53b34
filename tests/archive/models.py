"""A graph of four tables that only these tests have, with what can be between a parent and a child."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast
from uuid import UUID

from sqlalchemy import ForeignKey, Index, MetaData, Table, text
from sqlalchemy.orm import Mapped, mapped_column

from db.archive_tables import archive_table
from db.archives.catalog import Catalog
from db.base import BaseModel, SoftDeleteModel
from db.connection import DatabaseManager
from db.types import NAMING_CONVENTION

GRAPH = MetaData(naming_convention=NAMING_CONVENTION)
DELETED = text("is_deleted")


class Folder(SoftDeleteModel):
    """May lie in another one."""

    __tablename__ = "folders"
    metadata = GRAPH

    name: Mapped[str] = mapped_column(unique=True)
    parent_id: Mapped[UUID | None] = mapped_column(ForeignKey("folders.id"))

    __table_args__ = (Index(None, "deleted_at", "id", postgresql_where=DELETED, sqlite_where=DELETED),)


class Document(SoftDeleteModel):
    """Soft-deleted by itself; without an index for what is due."""

    __tablename__ = "documents"
    metadata = GRAPH

    title: Mapped[str]
    folder_id: Mapped[UUID] = mapped_column(ForeignKey(Folder.id, ondelete="CASCADE"))


class Revision(BaseModel):
    """Goes with its document: it knows no soft deletion, and its foreign key cascades."""

    __tablename__ = "revisions"
    metadata = GRAPH

    text: Mapped[str]
    document_id: Mapped[UUID] = mapped_column(ForeignKey(Document.id, ondelete="CASCADE"))


class Citation(BaseModel):
    """Lives by itself, and keeps the document that it cites."""

    __tablename__ = "citations"
    metadata = GRAPH

    document_id: Mapped[UUID] = mapped_column(ForeignKey(Document.id))


FOLDERS, DOCUMENTS, REVISIONS, CITATIONS = (
    cast("Table", model.__table__) for model in (Folder, Document, Revision, Citation)
)
FOLDERS_ARCHIVE, DOCUMENTS_ARCHIVE, REVISIONS_ARCHIVE = map(archive_table, (FOLDERS, DOCUMENTS, REVISIONS))
CATALOG = Catalog.of(GRAPH)


@asynccontextmanager
async def tables_of(manager: DatabaseManager, metadata: MetaData) -> AsyncIterator[None]:
    """Make the tables, and drop them again."""
    async with manager.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    try:
        yield
    finally:
        async with manager.engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)
