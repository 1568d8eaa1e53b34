"""The declarative base of every model."""

from sqlalchemy.orm import DeclarativeBase

from holdfast.outbox import metadata


class Base(DeclarativeBase):
    """Every model's base. Its metadata is the one in which ``holdfast.outbox`` defines ``job_runs``."""

    metadata = metadata

    def __repr__(self) -> str:
        names = [self.__mapper__.get_property_by_column(column).key for column in self.__mapper__.primary_key]
        return f"<{type(self).__name__} {', '.join(f'{name}={getattr(self, name)!r}' for name in names)}>"
