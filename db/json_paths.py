"""Queries into a JSON column that give the same rows on PostgreSQL, MySQL/MariaDB and SQLite.

Each function takes the column and the path to a value: keys as text, positions in lists (from 0) as numbers. What is
not there, or of another kind than was asked for, is NULL: the text ``"3"`` is no number, and ``1`` is not true.
"""

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Boolean, ColumnElement, Float, String, Text, literal
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import QueryableAttribute
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from db.collations import table_collation
from db.json_text import to_json_text

JSONColumn = ColumnElement[Any] | QueryableAttribute[Any]
Step = str | int

_REFUSED_IN_KEYS = '"\\'
_INTEGERS_IN_DOUBLES = "-9223372036854775808.0 AND 9223372036854774784.0"
"""From -2^63 to the last double below 2^63."""


def json_text(column: JSONColumn, *path: Step) -> ColumnElement[str | None]:
    """Return the text at the path. It is compared byte by byte; its order on PostgreSQL is the database's."""
    return _TextAt(column, _bound(path))


def json_integer(column: JSONColumn, *path: Step) -> ColumnElement[int | None]:
    """Return the whole number of 64 bits (signed) at the path; ``2.0`` is one."""
    return _IntegerAt(column, _bound(path))


def json_float(column: JSONColumn, *path: Step) -> ColumnElement[float | None]:
    """Return the number at the path."""
    return _FloatAt(column, _bound(path))


def json_boolean(column: JSONColumn, *path: Step) -> ColumnElement[bool | None]:
    """Return the boolean at the path."""
    return _BooleanAt(column, _bound(path))


def json_type(column: JSONColumn, *path: Step) -> ColumnElement[str | None]:
    """Return what is at the path: ``object``, ``array``, ``string``, ``number``, ``boolean`` or ``null``."""
    return _TypeAt(column, _bound(path))


def json_has_item(column: JSONColumn, item: str, *path: Step) -> ColumnElement[bool]:
    """Return whether the list at the path (the column's own, without one) holds the text ``item``.

    Raises:
        UnfitJSONError: no list can hold it.
    """
    to_json_text(item)
    return _HasItem(column, _bound(path), literal(item, Text()))


def _bound(path: tuple[Step, ...]) -> ColumnElement[str]:
    return literal(path_text(path), Text())


def path_text(path: tuple[Step, ...]) -> str:
    """Return a path as all engines read it: ``$."teams"[0]``.

    Raises:
        ValueError: a position is negative, or a key is empty or holds what the engines read differently.
    """
    return "$" + "".join(_step_text(step) for step in path)


def _step_text(step: Step) -> str:
    if isinstance(step, int):
        if step < 0 or isinstance(step, bool):
            raise ValueError(f"the path's position {step!r} is no number from 0 on: count from the list's beginning")
        return f"[{step}]"
    if not step or any(character in _REFUSED_IN_KEYS or ord(character) < 0x20 for character in step):
        raise ValueError(f"the path's key {step!r} is empty or holds a quote, backslash or control character")
    if step.startswith("-"):
        raise ValueError(f"the path's key {step!r} begins with a minus, which MariaDB (10.11) does not find")
    to_json_text(step)
    return f'."{step}"'


class _AtPath(FunctionElement[Any]):
    """Something about the value at a path of a column. ``{c}`` in its SQL is the column, ``{p}`` the path."""

    inherit_cache = True
    postgresql: ClassVar[str]
    mysql: ClassVar[str]
    sqlite: ClassVar[str]


# The strict mode takes no list for its elements; what it finds to be of another shape is silently NULL.
_PG = "jsonb_path_query_first({c}, CAST('strict ' || {p} AS jsonpath), '{{}}', true)"
# Its texts have a collation of their own, which cannot be compared with the connection's: each is given the tables'.
_MY = "JSON_EXTRACT({c}, {p})"
_MY_TYPE = f"JSON_TYPE({_MY})"  # MariaDB's takes 1e-05 for an integer
_MY_NUMBERS = "('INTEGER', 'UNSIGNED INTEGER', 'DOUBLE', 'DECIMAL')"
_MY_TEXT = f"JSON_UNQUOTE({_MY}) COLLATE {{collation}}"
_MY_DOUBLE = f"CAST({_MY} AS DOUBLE)"
_LITE, _LITE_TYPE = "json_extract({c}, {p})", "json_type({c}, {p})"


class _TextAt(_AtPath):
    type = Text()
    inherit_cache = True
    postgresql = f"CASE WHEN jsonb_typeof({_PG}) = 'string' THEN {_PG} #>> '{{{{}}}}' END"
    mysql = f"CASE WHEN {_MY_TYPE} = 'STRING' THEN {_MY_TEXT} END"
    sqlite = f"CASE WHEN {_LITE_TYPE} = 'text' THEN {_LITE} END"


class _IntegerAt(_AtPath):
    type = BigInteger()
    inherit_cache = True
    _number = f"CAST({_PG} #>> '{{{{}}}}' AS numeric)"
    _whole = f"{_number} % 1 = 0 AND {_number} BETWEEN -9223372036854775808 AND 9223372036854775807"
    postgresql = (
        f"CASE WHEN jsonb_typeof({_PG}) = 'number' THEN CASE WHEN {_whole} THEN CAST({_number} AS bigint) END END"
    )
    mysql = (
        f"CASE WHEN {_MY_TYPE} IN {_MY_NUMBERS} THEN CASE WHEN {_MY_TEXT} REGEXP '^-?[0-9]+$' THEN "
        f"CASE WHEN CAST({_MY} AS DECIMAL(65, 0)) BETWEEN -9223372036854775808 AND 9223372036854775807 "
        f"THEN CAST({_MY} AS SIGNED) END "
        f"WHEN FLOOR({_MY_DOUBLE}) = {_MY_DOUBLE} AND {_MY_DOUBLE} BETWEEN {_INTEGERS_IN_DOUBLES} "
        f"THEN CAST({_MY_DOUBLE} AS SIGNED) END END"
    )
    sqlite = (
        f"CASE typeof({_LITE}) || ' ' || {_LITE_TYPE} WHEN 'integer integer' THEN {_LITE} "
        f"WHEN 'real real' THEN CASE WHEN {_LITE} BETWEEN {_INTEGERS_IN_DOUBLES} "
        f"AND {_LITE} = CAST({_LITE} AS INTEGER) THEN CAST({_LITE} AS INTEGER) END END"
    )


class _FloatAt(_AtPath):
    type = Float(53)
    inherit_cache = True
    postgresql = f"CASE WHEN jsonb_typeof({_PG}) = 'number' THEN CAST({_PG} #>> '{{{{}}}}' AS double precision) END"
    mysql = f"CASE WHEN {_MY_TYPE} IN {_MY_NUMBERS} THEN {_MY_DOUBLE} END"
    sqlite = f"CASE WHEN {_LITE_TYPE} IN ('integer', 'real') THEN CAST({_LITE} AS REAL) END"


class _BooleanAt(_AtPath):
    type = Boolean()
    inherit_cache = True
    postgresql = f"CASE WHEN jsonb_typeof({_PG}) = 'boolean' THEN CAST({_PG} #>> '{{{{}}}}' AS boolean) END"
    mysql = f"CASE WHEN {_MY_TYPE} = 'BOOLEAN' THEN {_MY_TEXT} = 'true' END"
    sqlite = f"CASE {_LITE_TYPE} WHEN 'true' THEN 1 WHEN 'false' THEN 0 END"


class _TypeAt(_AtPath):
    type = String(10)
    inherit_cache = True
    postgresql = f"jsonb_typeof({_PG})"
    mysql = (
        f"CONVERT(CASE WHEN {_MY_TYPE} IN {_MY_NUMBERS} THEN 'number' "
        f"ELSE LOWER({_MY_TYPE}) END USING utf8mb4) COLLATE {{collation}}"
    )
    sqlite = (
        f"CASE {_LITE_TYPE} WHEN 'text' THEN 'string' WHEN 'integer' THEN 'number' WHEN 'real' THEN 'number' "
        f"WHEN 'true' THEN 'boolean' WHEN 'false' THEN 'boolean' ELSE {_LITE_TYPE} END"
    )


class _HasItem(_AtPath):
    """As the others; ``{t}`` is the item."""

    type = Boolean()
    inherit_cache = True
    postgresql = f"coalesce({_PG} @> jsonb_build_array(CAST({{t}} AS text)), false)"
    mysql = f"COALESCE({_MY_TYPE} = 'ARRAY' AND JSON_CONTAINS({_MY}, JSON_QUOTE({{t}})), FALSE)"
    sqlite = (
        f"coalesce({_LITE_TYPE} = 'array' AND EXISTS (SELECT 1 FROM json_each({{c}}, {{p}}) AS item "  # noqa: S608
        "WHERE item.type = 'text' AND item.atom = {t}), 0)"
    )


@compiles(_AtPath)
def _compile_at_path(element: _AtPath, compiler: SQLCompiler, **kw: Any) -> str:
    dialect = compiler.dialect
    template = {"postgresql": element.postgresql, "sqlite": element.sqlite}.get(dialect.name, element.mysql)
    parts = dict(zip("cpt", (compiler.process(clause, **kw) for clause in element.clauses), strict=False))
    is_mariadb = bool(getattr(dialect, "is_mariadb", False))
    return f"({template.format(**parts, collation=table_collation(is_mariadb=is_mariadb))})"
