"""``SmartJSON``: one JSON column type for all three engines."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import JSON, ColumnElement, Dialect, String
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import BinaryExpression, BindParameter
from sqlalchemy.sql.operators import OperatorType, json_getitem_op, json_path_getitem_op
from sqlalchemy.types import TypeDecorator, TypeEngine

from db.json_paths import Step, json_boolean, json_float, json_integer, json_text
from db.json_text import to_json_text
from db.tracked_json import TrackedJSON


class CheckedText(sqlite.JSON):
    """Text on SQLite; the table's CHECK says that it is JSON. (A column of the type JSON would hold numbers.)"""


@compiles(CheckedText, "sqlite")
def _checked_text(element: CheckedText, compiler: object, **kw: Any) -> str:
    del element, compiler, kw
    return "TEXT"


class SmartJSON(TypeDecorator[Any]):
    """An object or a list: ``jsonb`` on PostgreSQL, ``JSON`` on MySQL and MariaDB, checked text on SQLite.

    What comes back equals what went in, or it is refused before it is sent, with the place and the reason: see
    ``db.json_text``. ``None`` is SQL's NULL. What an attribute of a model holds tells its row when it is changed, at
    whatever depth. For queries there are the functions of ``db.json_paths``, which is also what ``as_string()`` and
    the like of ``column["key"]`` stand for.
    """

    impl = JSON
    cache_ok = True
    hashable = False

    class Comparator(TypeDecorator.Comparator[Any], JSON.Comparator[Any]):
        """What an expression of this type can do."""

        def as_string(self) -> ColumnElement[Any]:
            """Return ``json_text`` of the indexed place."""
            return json_text(*self._place())

        def as_integer(self) -> ColumnElement[Any]:
            """Return ``json_integer`` of the indexed place."""
            return json_integer(*self._place())

        def as_float(self) -> ColumnElement[Any]:
            """Return ``json_float`` of the indexed place."""
            return json_float(*self._place())

        def as_boolean(self) -> ColumnElement[Any]:
            """Return ``json_boolean`` of the indexed place."""
            return json_boolean(*self._place())

        def _place(self) -> tuple[Any, ...]:
            expression: Any = self.expr
            path: list[Step] = []
            while isinstance(expression, BinaryExpression) and isinstance(expression.right, BindParameter):
                if expression.operator is json_path_getitem_op:
                    path[:0] = expression.right.value  # type: ignore[assignment]
                elif expression.operator is json_getitem_op:
                    path.insert(0, expression.right.value)  # type: ignore[arg-type]
                else:
                    break
                expression = expression.left
            return expression, *path

    comparator_factory = Comparator

    def __init__(self) -> None:
        super().__init__(none_as_null=True)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the engine's own type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.JSONB(none_as_null=True))
        return CheckedText() if dialect.name == "sqlite" else dialect.type_descriptor(JSON(none_as_null=True))

    def coerce_compared_value(self, op: OperatorType | None, value: Any) -> TypeEngine[Any]:
        """Take a key in ``column["key"]`` for a key and not for JSON."""
        return self.impl_instance.coerce_compared_value(op, value)

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], str | None]:
        """Return what makes JSON text of a value, whatever the engine's ``json_serializer`` is."""
        wide = has_wide_integers(dialect)

        def to_text(value: Any) -> str | None:
            return None if value is None else to_json_text(_container(value), wide_integers=wide)

        return to_text

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:
        """Return what writes a value into a statement."""
        quoted = String().literal_processor(dialect)  # type: ignore[no-untyped-call]
        assert quoted is not None  # noqa: S101 - every dialect has one for text
        to_text = self.bind_processor(dialect)
        return lambda value: "NULL" if (text := to_text(value)) is None else quoted(text)


def has_wide_integers(dialect: Dialect) -> bool:
    """Whether the engine's JSON keeps integers of more than 64 bits; MySQL's does not."""
    return dialect.name not in {"mysql", "mariadb"} or bool(getattr(dialect, "is_mariadb", False))


def _container(value: Any) -> Any:
    if isinstance(value, dict | list):
        return value
    raise ValueError(f"a {type(value).__name__} is no value of a JSON column: pass a dict or a list")


TrackedJSON.associate_with(SmartJSON)
