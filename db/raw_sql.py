"""Statements as text, whose every value is bound."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BindParameter, TextClause, bindparam, text


def bound(sql: str, params: Mapping[str, Any]) -> TextClause:
    """Return a statement that takes these parameters.

    Args:
        sql: with ``:name`` for each value.
        params: the values by name; a list fills an ``IN :name``.

    Raises:
        ValueError: a value has no place in the statement, a place has no value, or a list is empty.
    """
    statement = text(sql)
    names = statement.compile().params.keys()
    if names != params.keys():
        odd = ", ".join(sorted(names ^ params.keys()))
        raise ValueError(f"the statement and its parameters differ in {odd}: write :name in the SQL for each value")
    lists: list[BindParameter[Any]] = []
    for name, value in params.items():
        if not isinstance(value, list | tuple):
            continue
        if not value:
            raise ValueError(f"{name} is an empty list, and IN takes at least one value: leave the statement out")
        lists.append(bindparam(name, expanding=True))
    return statement.bindparams(*lists)


def stand_in_text(*names: str) -> bool:
    """Whether names can be written into a statement for ``text()``, which takes a colon for the begin of a parameter.

    A percent sign comes out doubled, for it is doubled where the name is quoted and again with the statement.
    """
    return not any(character in name for name in names for character in ":%\\")
