"""Conditions on many values at once."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Column, ColumnElement, any_, bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession


def among(session: AsyncSession, column: Column[Any], values: Collection[Any]) -> ColumnElement[bool]:
    """Return the condition that a column has one of these values.

    On PostgreSQL the values are one array: planning ``IN`` with hundreds of parameters takes longer than the search.
    """
    if session.get_bind().dialect.name != "postgresql":
        return column.in_(values)
    return column == any_(bindparam(None, list(values), type_=ARRAY(column.type)))
