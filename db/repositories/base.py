"""What every repository can do. Each method takes the session first; none of them commits.

    class Shelves(BaseRepository[Shelf]):
        model = Shelf

    async with get_async_session() as session:
        shelf = await Shelves().create(session, name="poetry")

Errors are those of ``db.errors``, the same on each engine. Rows are written by statements at once: there is nothing to
flush afterwards, and what the session holds unflushed is flushed before. Mapper events (``before_insert``) are not
fired, the columns' defaults are applied.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Generic, Unpack

from sqlalchemy import ColumnElement, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.interfaces import ORMOption

from db.errors import InvalidFilterError, InvalidInputError
from db.mixins import now
from db.repositories.bulk import Bulk
from db.repositories.filters import Filters, conditions
from db.repositories.pages import MOST_ROWS, Order, Page, Paging
from db.repositories.rows import Rows
from db.repositories.shape import MARKS, ModelT, Shape
from db.repositories.upsert import upsert

__all__ = ["BaseRepository", "Filters", "ModelT", "Page", "Paging"]


class BaseRepository(Generic[ModelT]):
    """Reads and writes one model; a subclass names it in ``model``. It holds no state but statements."""

    model: type[ModelT]

    @cached_property
    def _shape(self) -> Shape[ModelT]:
        return Shape(self.model)

    @cached_property
    def _rows(self) -> Rows[ModelT]:
        return Rows(self._shape)

    @cached_property
    def _bulk(self) -> Bulk[ModelT]:
        return Bulk(self._rows)

    async def get(
        self,
        session: AsyncSession,
        key: Any,
        /,
        *,
        include_deleted: bool = False,
        options: Sequence[ORMOption] = (),
    ) -> ModelT | None:
        """Return the row with this primary key, None if there is none.

        Args:
            session: an open one.
            key: the primary key's value.
            include_deleted: a soft-deleted row, too.
            options: what to load with it, such as ``selectinload(Task.user)``.
        """
        self._shape.check_key(key)
        return await self._rows.get(session, key, include_deleted=include_deleted, options=options)

    async def get_for_update(self, session: AsyncSession, key: Any, /) -> ModelT | None:
        """Return the row as it is now, and keep others from changing it until this transaction ends.

        On SQLite a writing session has the whole database for itself.
        """
        self._shape.check_key(key)
        return await self._rows.get_locked(session, key)

    async def get_multi(
        self, session: AsyncSession, filters: Filters | None = None, /, **paging: Unpack[Paging]
    ) -> Page[ModelT]:
        """Return a page of rows.

        Args:
            session: an open one.
            filters: by field and operator, see ``db.repositories.filters``.
            paging: see ``Paging``.

        Raises:
            InvalidFilterError: a filter, the order or the page does not fit.
        """
        limit, after = paging.get("limit", 100), paging.get("after")
        _check_number("limit", limit, 1, MOST_ROWS)
        offset = _check_number("offset", paging.get("offset", 0), 0, 2**63 - 1)
        order = Order(self._shape, paging.get("order_by", ()))
        query = select(self.model).where(*conditions(session, self._shape, filters)).order_by(*order.clauses())
        if after is not None:
            if offset:
                raise InvalidFilterError("offset and after: a page begins at one of them; leave the other out")
            query = query.where(order.after(after))
        if paging.get("include_deleted", False):
            query = query.execution_options(include_deleted=True)
        query = query.options(*paging.get("options", ())).limit(limit + 1).offset(offset or None)
        with self._rows.errors():
            found = (await session.execute(query)).scalars().all()
        page = Page(found[:limit])
        page.next_cursor = order.cursor(found[limit - 1]) if len(found) > limit else None
        return page

    async def stream(
        self,
        session: AsyncSession,
        filters: Filters | None = None,
        /,
        *,
        batch_rows: int = 1000,
        order_by: str | Sequence[str] = (),
        include_deleted: bool = False,
        options: Sequence[ORMOption] = (),
    ) -> AsyncIterator[ModelT]:
        """Yield all rows that match, page by page behind a cursor: what was yielded may be changed or deleted.

        Args:
            session: an open one; it may be used between two rows.
            filters: as ``get_multi``.
            batch_rows: how many rows are in memory at a time.
            order_by, include_deleted, options: as in ``Paging``.
        """
        paging: Paging = {"order_by": order_by, "include_deleted": include_deleted, "options": options}
        paging |= {"limit": batch_rows, "after": None}
        while True:
            page = await self.get_multi(session, filters, **paging)
            for row in page:
                yield row
            if page.next_cursor is None:
                return
            paging["after"] = page.next_cursor

    async def count(
        self, session: AsyncSession, filters: Filters | None = None, /, *, include_deleted: bool = False
    ) -> int:
        """Return how many rows match. Arguments as ``get_multi``."""
        query = select(func.count()).select_from(self._shape.table)
        with self._rows.errors():
            found = await session.execute(query.where(*self._matches(session, filters, include_deleted)))
        return found.scalar_one()

    async def exists(
        self, session: AsyncSession, filters: Filters | None = None, /, *, include_deleted: bool = False
    ) -> bool:
        """Return whether a row matches. Arguments as ``get_multi``."""
        query = select(literal(1)).select_from(self._shape.table).limit(1)
        with self._rows.errors():
            found = await session.execute(query.where(*self._matches(session, filters, include_deleted)))
        return found.scalar() is not None

    async def create(self, session: AsyncSession, /, **values: Any) -> ModelT:
        """Insert a row and return it with its defaults.

        Raises:
            InvalidInputError: a value is of no field, or does not fit.
            DuplicateKeyError: a key is taken; ``deleted_id`` tells of a soft-deleted row. The session goes on.
        """
        self._shape.check(values)
        return await self._rows.create(session, values)

    async def update(self, session: AsyncSession, key: Any, /, **changes: Any) -> ModelT:
        """Change a row and return it.

        Raises:
            NotFoundError: there is none, or it is soft-deleted.
            InvalidInputError: a value is of no field that may be changed, or does not fit.
            DuplicateKeyError: as ``create``.
        """
        if not changes:
            raise InvalidInputError(f"{self._shape.table.name}: nothing to change; name a field and its value")
        self._shape.check_key(key)
        self._shape.check(changes, refused=self._shape.not_changed)
        return await self._rows.update(session, key, changes)

    async def upsert(self, session: AsyncSession, /, *, by: str | Sequence[str], **values: Any) -> ModelT:
        """Insert a row, or change what ``values`` names in the row that has this key; returns it.

        Args:
            session: an open one.
            by: the fields of one unique key, which ``values`` holds, too.
            values: by field.

        Raises:
            DuplicateKeyError: the key is a soft-deleted row's, or another of its keys is taken.
            InvalidInputError: as ``create``, or ``by`` is no unique key.
        """
        self._shape.check(values, refused=MARKS if self._shape.is_soft else ())
        return await upsert(session, self._rows, values, by)

    async def delete(self, session: AsyncSession, key: Any, /) -> None:
        """Delete a row; softly, where the model is a ``SoftDeleteMixin``.

        Raises:
            NotFoundError: there is none, or it is soft-deleted already.
        """
        if not self._shape.is_soft:
            await self.hard_delete(session, key)
            return
        self._shape.check_key(key)
        await self._rows.update(session, key, {"is_deleted": True, "deleted_at": now()})

    async def hard_delete(self, session: AsyncSession, key: Any, /) -> None:
        """Delete a row for good, soft-deleted or not.

        Raises:
            NotFoundError: there is none.
            ForeignKeyError: other rows point to it.
        """
        self._shape.check_key(key)
        await self._rows.delete(session, key)

    async def restore(self, session: AsyncSession, key: Any, /) -> ModelT:
        """Take back a soft deletion and return the row; one that is not deleted stays as it is.

        Raises:
            NotFoundError: there is no such row.
            InvalidInputError: the model has no soft deletion.
        """
        if not self._shape.is_soft:
            raise InvalidInputError(f"{self._shape.table.name} has no soft deletion: what is deleted is gone")
        self._shape.check_key(key)
        return await self._rows.update(session, key, {"is_deleted": False, "deleted_at": None}, include_deleted=True)

    async def bulk_create(self, session: AsyncSession, rows: Iterable[Mapping[str, Any]], /) -> int:
        """Insert rows, all or none; returns how many.

        Args:
            session: an open one.
            rows: values by field; those with the same fields in the same order go into one ``insert()``.

        Raises:
            InvalidInputError, DuplicateKeyError: as ``create``.
        """
        return await self._bulk.create(session, rows)

    async def bulk_update(self, session: AsyncSession, rows: Iterable[Mapping[str, Any]], /) -> int:
        """Change rows, all or none; returns how many.

        Args:
            session: an open one.
            rows: each the primary key and what to change in that row, by field.

        Raises:
            NotFoundError: one of them is not there, or is soft-deleted.
            InvalidInputError, DuplicateKeyError: as ``update``.
        """
        return await self._bulk.update(session, rows)

    async def bulk_delete(self, session: AsyncSession, keys: Iterable[Any], /) -> int:
        """Delete rows, softly where the model is; returns how many there were. Any number of keys will do."""
        return await self._bulk.delete(session, keys)

    def _matches(
        self, session: AsyncSession, filters: Filters | None, include_deleted: bool
    ) -> list[ColumnElement[bool]]:
        found = conditions(session, self._shape, filters)
        if self._shape.is_soft and not include_deleted:
            found.append(self._shape.table.c.is_deleted.is_(False))
        return found


def _check_number(name: str, value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidFilterError(f"{name}={str(value)[:60]!r}: takes a number from {least} to {most}")
    return value
