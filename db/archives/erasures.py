"""The erasure list: rows that were deleted for good, and that nothing brings back. It holds keys and no content."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.keys import Key, key_text
from db.models import Erasure
from holdfast.outbox import uuid7

KEYS_A_QUERY = 500


@dataclass(frozen=True, slots=True)
class Listing:
    """What is written down of rows that are erased."""

    reason: str
    erased_at: datetime
    erased_by: str | None = None


async def find_erasures(session: AsyncSession, table: Table, keys: Sequence[Key]) -> dict[Key, Erasure]:
    """Return those of these rows that are on the list."""
    by_text = {key_text(key): key for key in keys}
    texts, found = list(by_text), dict[Key, Erasure]()
    for start in range(0, len(texts), KEYS_A_QUERY):
        query = select(Erasure).where(
            Erasure.table_name == table.fullname, Erasure.row_key.in_(texts[start : start + KEYS_A_QUERY])
        )
        found |= {by_text[erasure.row_key]: erasure for erasure in await session.scalars(query)}
    return found


async def list_erasures(session: AsyncSession, table: Table, keys: Sequence[Key], listing: Listing) -> int:
    """Put rows on the list; returns how many were not on it.

    Raises:
        sqlalchemy.exc.IntegrityError: another transaction does so at this moment (``db.races``).
    """
    known = await find_erasures(session, table, keys)
    new = [
        {
            "id": uuid7(),
            "table_name": table.fullname,
            "row_key": key_text(key),
            "reason": listing.reason,
            "erased_at": listing.erased_at,
            "erased_by": listing.erased_by,
        }
        for key in dict.fromkeys(keys)
        if key not in known
    ]
    if new:
        await session.execute(insert(Erasure), new)
    return len(new)


async def read_list(session: AsyncSession) -> list[dict[str, Any]]:
    """Return the whole list, to be kept while a backup replaces it: the backup's own is older."""
    table = cast("Table", Erasure.__table__)
    return [dict(row) for row in (await session.execute(select(table))).mappings()]


async def merge_list(session: AsyncSession, rows: Iterable[dict[str, Any]]) -> int:
    """Add what ``read_list`` has returned; returns how many were not on the list."""
    table = cast("Table", Erasure.__table__)
    keys = await session.execute(select(table.c.table_name, table.c.row_key))
    known = {(row.table_name, row.row_key) for row in keys}
    new = [row for row in rows if (row["table_name"], row["row_key"]) not in known]
    if new:
        await session.execute(insert(table), new)
    return len(new)
