"""Ids of runs: UUID version 7, which sort by the time they were made."""

import os
import time
from uuid import UUID


def uuid7() -> UUID:
    """Make a UUID version 7: 48 bits of Unix milliseconds, then 74 random bits.

    The layout is RFC 9562, section 5.7. ``uuid.uuid7`` of the standard library begins with Python 3.14.
    """
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = (milliseconds & (1 << 48) - 1) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return UUID(int=value)
