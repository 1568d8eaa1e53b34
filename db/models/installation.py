"""Which database server this ledger belongs to."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Integer, String, Uuid
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.types import UtcDateTime, json_column_type


class Installation(Base):
    """The one row that tells a ledger from its clone: a restored copy elsewhere must not run production's queue."""

    __tablename__ = "installation"

    id: Mapped[int] = mapped_column(Integer(), primary_key=True, autoincrement=False)
    installation_id: Mapped[UUID] = mapped_column(Uuid())
    server: Mapped[str] = mapped_column(String(500))
    """What the database's server said of itself when this ledger was adopted; empty: nobody has adopted it."""
    addresses: Mapped[list[str] | None] = mapped_column(json_column_type())
    """Where workers were told to find it, as in ``DATABASE_URL``: ``host:port``, or the path of a file."""
    adopted_at: Mapped[datetime] = mapped_column(UtcDateTime())
    """When it was adopted last though it had an owner, as a copy does; 1970 where that has never been."""
