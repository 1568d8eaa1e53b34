"""What a column's values are in Python, through the types that are built on others."""

from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import ARRAY, JSON, Numeric, Text
from sqlalchemy import Enum as EnumType
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.types import NullType, TypeDecorator, TypeEngine, UserDefinedType

from db.python_types import python_type
from db.types import ShortText, SmartJSON, UtcDateTime, UUIDType, json_column_type, long_text_type


class Colour(Enum):
    RED = "red"


class Unspoken(UserDefinedType[Any]):
    """A type that does not say what its values are."""


class OnUnspoken(TypeDecorator[Any]):
    impl = Unspoken
    cache_ok = True


class OnShortText(TypeDecorator[str]):
    impl = ShortText
    cache_ok = True


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Text(), str),
        (Numeric(), Decimal),
        (JSON(), dict),
        (ARRAY(Text()), list),
        (EnumType(Colour), Colour),
        (UUIDType(), UUID),
        (UtcDateTime(), datetime),
        (ShortText(5), str),
        (OnShortText(5), str),
        (SmartJSON(), dict),
        (json_column_type(), dict),
        (long_text_type(), str),
        (TSVECTOR(), object),
        (NullType(), object),
        (Unspoken(), object),
        (OnUnspoken(), object),
    ],
)
def test_the_type_of_its_values(kind: TypeEngine[Any], expected: type[Any]) -> None:
    assert python_type(kind) is expected
