"""Types of columns, as a database names them."""

import pytest

from db.archives.hashing import base_type


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        ("timestamp(3) with time zone[]", "timestamp"),
        ("time without time zone", "time"),
        ("interval day to second(3)", "interval"),
        ("numeric(30,10)", "numeric"),
        ("date[]", "date"),
        ("int(11) unsigned", "int"),
        ("timeframe", "timeframe"),
        ('"time frame"', '"time'),
    ],
)
def test_the_own_word_of_a_type(kind: str, base: str) -> None:
    assert base_type(kind) == base
