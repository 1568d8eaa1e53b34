"""The declarative base of every model, and the three that a team builds its own models on."""

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, time
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CheckConstraint, Double, LargeBinary, Table, Time, func, inspect, or_
from sqlalchemy.dialects import mysql
from sqlalchemy.orm import DeclarativeBase

from db.fields import FieldError, column_fields, json_columns, shortened, unknown_field
from db.mixins import AuditMixin, MetadataMixin, SoftDeleteMixin, TimestampMixin, UUIDMixin
from db.types import ShortText, SmartJSON, UtcDateTime, UUIDType
from holdfast.outbox import metadata

_WORD_STARTS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def snake_case(name: str) -> str:
    """Return a class's name as a table's: ``OrderLine`` is ``order_line``, ``HTTPRequest`` is ``http_request``."""
    return _WORD_STARTS.sub("_", name).lower()


def _add_checks_of_sqlite(table: Table) -> None:
    """What the other engines check by themselves."""
    for column in table.columns:
        if isinstance(column.type, SmartJSON):
            check, name = or_(column.is_(None), func.json_valid(column)), f"{column.name}_json"
        elif isinstance(column.type, ShortText):
            check, name = func.length(column) <= column.type.length, f"{column.name}_length"
        else:
            continue
        rule = CheckConstraint(check, name=name, info={"dialect": "sqlite"})
        table.append_constraint(rule.ddl_if(dialect="sqlite"))


class Base(DeclarativeBase):
    """Every model's base. Its metadata is the one in which ``holdfast.outbox`` defines ``job_runs``.

    A model that names no ``__tablename__`` gets its class's name in snake_case.
    """

    metadata = metadata
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        # What MySQL has without being told: no VARCHAR, 24 bits of a float, whole seconds, blobs of 64 KiB.
        str: ShortText(255),
        float: Double(),
        time: Time().with_variant(mysql.TIME(fsp=6), "mysql", "mariadb"),
        bytes: LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb"),
        datetime: UtcDateTime(),
        UUID: UUIDType(),
        dict[str, Any]: SmartJSON(),
        list[str]: SmartJSON(),
    }
    __shown__: ClassVar[tuple[str, ...]] = ()
    """The fields that ``repr`` shows besides the primary key."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        own = vars(cls)
        if not (own.get("__abstract__") or "__table__" in own or hasattr(cls, "__tablename__")):
            cls.__tablename__ = snake_case(cls.__name__)
        super().__init_subclass__(**kwargs)
        if isinstance(table := vars(cls).get("__table__"), Table):
            _add_checks_of_sqlite(table)

    def to_dict(self, *, include: Iterable[str] = (), exclude: Iterable[str] = ()) -> dict[str, Any]:
        """Return the loaded columns as JSON values; relationships are for ``ModelSerializer``.

        Args:
            include: private fields (``info={"private": True}``) that are wanted all the same.
            exclude: fields to leave out.
        """
        return json_columns(self, include=include, exclude=exclude)

    def update_from_dict(self, values: Mapping[str, Any]) -> None:
        """Set several columns; either all are set or none.

        Raises:
            FieldError: the model has no such column, or one that is protected: its primary key and what has
                ``info={"protected": True}``.
        """
        fields = column_fields(type(self))
        for name, value in values.items():
            if name not in fields:
                raise unknown_field(type(self), name, value, fields)
            column = fields[name].columns[0]
            if column.primary_key or column.info.get("protected", False):
                raise FieldError(type(self).__name__, name, value, "is protected: leave it out")
        for name, value in values.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        loaded, mapper = inspect(self).dict, self.__mapper__
        names = [mapper.get_property_by_column(column).key for column in mapper.primary_key] + list(self.__shown__)
        # Only what is loaded: a repr in a log line must not query.
        return f"<{type(self).__name__} {', '.join(f'{n}={shortened(loaded[n])}' for n in names if n in loaded)}>"


class BaseModel(UUIDMixin, TimestampMixin, Base):
    """A model with a UUID (version 7) as its key, and the times of its making and last change."""

    __abstract__ = True


class SoftDeleteModel(SoftDeleteMixin, BaseModel):
    """``BaseModel`` whose rows are marked as deleted before they are archived or purged."""

    __abstract__ = True


class FullAuditModel(AuditMixin, MetadataMixin, SoftDeleteModel):
    """``SoftDeleteModel`` that also knows who made and changed it, and has room for metadata and tags."""

    __abstract__ = True
