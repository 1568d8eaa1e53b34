"""The people (and programs) that own tasks."""

from typing import TYPE_CHECKING

from sqlalchemy import false, true
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import BaseModel
from db.types import ShortText

if TYPE_CHECKING:
    from db.models.task import Task


class User(BaseModel):
    """One user. Without a ``hashed_password`` nobody can sign in as it."""

    __tablename__ = "users"
    __shown__ = ("username",)

    username: Mapped[str] = mapped_column(ShortText(150), unique=True)
    email: Mapped[str | None] = mapped_column(ShortText(255), unique=True)
    full_name: Mapped[str | None] = mapped_column(ShortText(255))
    hashed_password: Mapped[str | None] = mapped_column(ShortText(255), info={"private": True, "protected": True})
    is_active: Mapped[bool] = mapped_column(default=True, server_default=true())
    is_superuser: Mapped[bool] = mapped_column(default=False, server_default=false())
    tasks: Mapped[list["Task"]] = relationship(
        back_populates="user", cascade="all, delete-orphan", passive_deletes=True, lazy="raise"
    )
    """Ask for them with ``selectinload``: nothing is queried behind one's back."""
