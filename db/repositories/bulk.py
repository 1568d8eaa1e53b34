"""Many rows in few statements. Each call writes all of its rows or none, and leaves the session of use either way."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ColumnElement, delete, insert, inspect, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from db.errors import DuplicateKeyError, InvalidInputError
from db.mixins import now
from db.repositories.arrays import among
from db.repositories.duplicates import taken_by
from db.repositories.rows import KEY, VALUE, Rows
from db.repositories.shape import MARKS, ModelT

ROWS_AT_ONCE: Final = 10_000
"""How many rows, or keys, one statement gets: below every engine's limit of parameters in a statement, which is 32,766
on SQLite, 32,767 on PostgreSQL and 65,535 on MySQL, and few enough that a statement is over soon."""

T = TypeVar("T")


class Bulk(Generic[ModelT]):
    """The statements for many rows of a model."""

    def __init__(self, rows: Rows[ModelT]) -> None:
        self._rows = rows
        self._shape = rows.shape
        self._insert = insert(rows.shape.table)

    async def create(self, session: AsyncSession, rows: Iterable[Mapping[str, Any]]) -> int:
        """Insert rows, those with the same fields by one ``insert()``; returns how many.

        Raises:
            DuplicateKeyError: a key is taken, or is twice among the rows.
        """
        count, batch = 0, list[Mapping[str, Any]]()
        try:
            with self._rows.errors():
                async with session.begin_nested():
                    for batch in _batches(rows):
                        for group in _grouped(map(self._checked, batch), tuple).values():
                            await session.execute(self._insert, group)
                        count += len(batch)
        except DuplicateKeyError as error:
            raise await self._deleted_holder(session, error, batch) or error from error
        return count

    async def update(self, session: AsyncSession, rows: Iterable[Mapping[str, Any]]) -> int:
        """Change rows; each has its primary key and what is to be changed. Returns how many.

        Raises:
            NotFoundError: one of them is not there, or is soft-deleted.
            DuplicateKeyError: a key is taken, or is twice among the rows.
        """
        count, batch = 0, list[Mapping[str, Any]]()
        try:
            with self._rows.errors():
                async with session.begin_nested():
                    for batch in _batches(rows):
                        await self._update_batch(session, batch)
                        count += len(batch)
        except DuplicateKeyError as error:
            raise await self._deleted_holder(session, error, batch) or error from error
        return count

    async def delete(self, session: AsyncSession, keys: Iterable[Any]) -> int:
        """Delete rows, softly where the model is; returns how many there were."""
        count, shape = 0, self._shape
        with self._rows.errors():
            async with session.begin_nested():
                for batch in _batches(keys):
                    for key in batch:
                        shape.check_key(key)
                    result: Any = await session.execute(self._deletion(among(session, shape.key, batch)))
                    count += result.rowcount
                    if shape.is_soft:
                        await self._refresh(session, batch)
                    else:
                        for key in batch:
                            self._rows.forget(session, key)
        return count

    def _checked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        self._shape.check(values)
        return self._shape.row(values)

    def _check_change(self, values: Mapping[str, Any]) -> None:
        shape = self._shape
        shape.check(values, refused=MARKS if shape.is_soft else ())
        if values.get(shape.key_field) is None:
            raise InvalidInputError(f"{shape.table.name}: a change names its row by {shape.key_field}: add it")

    async def _update_batch(self, session: AsyncSession, rows: list[Mapping[str, Any]]) -> None:
        shape = self._shape
        for values in rows:
            self._check_change(values)
        keys = [values[shape.key_field] for values in rows]
        await self._all_there(session, keys)
        for names, group in _grouped(map(shape.row, rows), frozenset).items():
            await self._update_alike(session, names - {shape.key.key}, group)
        await self._refresh(session, keys)

    async def _all_there(self, session: AsyncSession, keys: list[Any]) -> None:
        shape = self._shape
        query = select(shape.key).where(among(session, shape.key, keys))
        if shape.is_soft:
            query = query.where(shape.table.c.is_deleted.is_(False))
        found = {str(key) for key in (await session.execute(query)).scalars()}
        for key in keys:
            if str(key) not in found:
                raise self._rows.missing(key)

    async def _update_alike(self, session: AsyncSession, names: frozenset[str], rows: list[dict[str, Any]]) -> None:
        if not names:
            return
        key = self._shape.key.key
        parameters = [{KEY: row[key], **{VALUE + name: row[name] for name in names}} for row in rows]
        statement = self._rows.update_statement(tuple(sorted(names)), False, False)
        await session.execute(statement, parameters)

    def _deletion(self, condition: ColumnElement[bool]) -> Any:
        table = self._shape.table
        if not self._shape.is_soft:
            return delete(table).where(condition)
        return update(table).where(condition, table.c.is_deleted.is_(False)).values(is_deleted=True, deleted_at=now())

    async def _refresh(self, session: AsyncSession, keys: list[Any]) -> None:
        """Tell the objects that the session knows of what was written behind their backs."""
        shape, known = self._shape, session.sync_session.identity_map
        identity = inspect(shape.model).identity_key_from_primary_key
        loaded = [key for key in keys if identity((key,)) in known] if len(known) else []
        if loaded:
            query = select(shape.model).where(among(session, shape.key, loaded))
            await session.execute(query.execution_options(populate_existing=True, include_deleted=True))

    async def _deleted_holder(
        self, session: AsyncSession, error: DuplicateKeyError, rows: list[Mapping[str, Any]]
    ) -> DuplicateKeyError | None:
        """Return the better error if a soft-deleted row has the key that one of the rows wanted."""
        shape = self._shape
        columns = next((key for key in shape.unique_keys if {c.name for c in key} == set(error.columns)), None)
        if columns is None or not shape.is_soft:
            return None
        fields = [shape.fields[column.name] for column in columns]
        wanted = [tuple(values.get(field) for field in fields) for values in rows]
        for some in _batches(wanted, ROWS_AT_ONCE // len(columns)):
            matches = tuple_(*columns).in_(some) & shape.table.c.is_deleted.is_(True)
            if (found := await taken_by(session, shape, columns, matches)) is not None:
                return found
        return None


def _batches(items: Iterable[T], size: int = ROWS_AT_ONCE) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


K = TypeVar("K", bound=Hashable)


def _grouped(rows: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], K]) -> dict[K, list[dict[str, Any]]]:
    groups: dict[K, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups
