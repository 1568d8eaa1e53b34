"""The people (and programs) that own tasks."""

from sqlalchemy import String, false, true
from sqlalchemy.orm import Mapped, mapped_column

from db.base import BaseModel


class User(BaseModel):
    """One user. Without a ``hashed_password`` nobody can sign in as it."""

    __tablename__ = "users"

    username: Mapped[str] = mapped_column(String(150), unique=True)
    email: Mapped[str | None] = mapped_column(String(255), unique=True)
    full_name: Mapped[str | None] = mapped_column(String(255))
    hashed_password: Mapped[str | None] = mapped_column(String(255))
    is_active: Mapped[bool] = mapped_column(default=True, server_default=true())
    is_superuser: Mapped[bool] = mapped_column(default=False, server_default=false())
