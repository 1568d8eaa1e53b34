"""Column types that files and the texts of keys can give back, with values of each."""

import enum
from datetime import UTC
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import (
    Boolean,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Time,
    Uuid,
)


class Way(enum.Enum):
    """Each value is the name of the other."""

    UP = "DOWN"
    DOWN = "UP"


KINDS: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (Uuid(), st.uuids()),
    (Integer(), st.integers()),
    (Numeric(), st.decimals(allow_nan=False)),
    (DateTime(), st.datetimes()),
    (DateTime(timezone=True), st.datetimes(timezones=st.just(UTC))),
    (Date(), st.dates()),
    (Time(), st.times()),
    (Interval(), st.timedeltas()),
    (Float(), st.floats(allow_nan=False)),
    (Boolean(), st.booleans()),
    (LargeBinary(), st.binary(max_size=200)),
    (Enum(Way), st.sampled_from(Way)),
    (Enum(Way, values_callable=lambda kind: [one.value for one in kind]), st.sampled_from(Way)),
    (String(), st.text()),
]
