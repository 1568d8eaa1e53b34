"""What a column's values are in Python."""

from typing import Any

from sqlalchemy.types import JSON, TypeDecorator, TypeEngine


def python_type(kind: TypeEngine[Any]) -> type[Any]:
    """Return the type of a column type's values; ``object`` where it does not say, nor what it is built on.

    For JSON it is ``dict``, although its values may be any.
    """
    if isinstance(kind, JSON):
        return dict
    try:
        told: type[Any] = kind.python_type
    except NotImplementedError:
        told = object
    if told is object and isinstance(kind, TypeDecorator):
        return python_type(kind.impl_instance)
    return told
