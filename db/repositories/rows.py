"""Single rows, written by statements of Core and read back as objects of the session.

A flush of the ORM costs several times the statement in it; and after a failed flush a session is of no use until it is
rolled back, while after a refused statement it goes on.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import lru_cache
from typing import Any, Generic

from sqlalchemy import Executable, bindparam, delete, insert, inspect, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.interfaces import ORMOption

from db.error_mapping import errors_named
from db.errors import DuplicateKeyError, NotFoundError
from db.mixins import without_deleted
from db.repositories.duplicates import duplicate
from db.repositories.shape import ModelT, Shape

KEY = "holdfast_key"
VALUE = "holdfast_new_"
"""Names of parameters that no column has."""


class Rows(Generic[ModelT]):
    """The statements for single rows of a model, built once each."""

    def __init__(self, shape: Shape[ModelT]) -> None:
        self.shape = shape
        found = select(shape.model).where(getattr(shape.model, shape.key_field) == bindparam(KEY))
        self._living = without_deleted(found)
        self._all = found.execution_options(include_deleted=True)
        self._inserts = lru_cache(maxsize=256)(self._insert_statement)
        self.update_statement = lru_cache(maxsize=256)(self._update_statement)
        """The UPDATE of some columns of one row; arguments: their names, whether soft-deleted rows count, whether it
        returns the row."""

    def errors(self) -> AbstractContextManager[None]:
        """Return the context in which the drivers' errors are named."""
        return errors_named(self.shape.table.metadata, table=self.shape.table.name)

    async def get(
        self, session: AsyncSession, key: Any, *, include_deleted: bool, options: Sequence[ORMOption] = ()
    ) -> ModelT | None:
        """Return a row, or None."""
        statement = self._all if include_deleted else self._living
        if options:
            statement = statement.options(*options)
        with self.errors():
            found: ModelT | None = (await session.execute(statement, {KEY: key})).scalar_one_or_none()
        return found

    async def get_locked(self, session: AsyncSession, key: Any) -> ModelT | None:
        """Return a living row, locked, whatever the session knows of it."""
        statement = self._living.with_for_update().execution_options(populate_existing=True)
        with self.errors():
            found: ModelT | None = (await session.execute(statement, {KEY: key})).scalar_one_or_none()
        return found

    async def create(self, session: AsyncSession, values: Mapping[str, Any]) -> ModelT:
        """Insert a row and return it.

        Raises:
            DuplicateKeyError: one of its keys is taken; the session can go on.
        """
        dialect = session.get_bind().dialect
        # On PostgreSQL a refused statement ends the transaction, so that nobody could look for who has the key.
        if_free = dialect.name == "postgresql"
        row = self.shape.row(values)
        statement = self._inserts(tuple(row), if_free, dialect.insert_returning)
        try:
            with self.errors():
                result: Any = await session.execute(statement, _parameters(row))
        except DuplicateKeyError as error:
            raise await duplicate(session, self.shape, values, error.columns) or error from error
        if not dialect.insert_returning:  # MySQL
            return await self.read_back(session, result.inserted_primary_key[0])
        created: ModelT | None = result.scalar_one_or_none()
        if created is None:
            raise await duplicate(session, self.shape, values) or self.shape.taken()
        return created

    async def update(
        self, session: AsyncSession, key: Any, changes: Mapping[str, Any], *, include_deleted: bool = False
    ) -> ModelT:
        """Change a row and return it; a soft-deleted one is only found with ``include_deleted``.

        Raises:
            NotFoundError: there is none.
            DuplicateKeyError: one of its keys is taken; the session can go on.
        """
        returns = session.get_bind().dialect.update_returning
        row = self.shape.row(changes)
        statement = self.update_statement(tuple(row), include_deleted, returns)
        try:
            async with self.kept(session, changes):
                with self.errors():
                    result: Any = await session.execute(statement, {KEY: key, **_parameters(row)})
        except DuplicateKeyError as error:
            raise await duplicate(session, self.shape, changes, error.columns, besides=key) or error from error
        if not returns:  # MySQL, MariaDB
            if result.rowcount == 0:
                raise self.missing(key)
            return await self.read_back(session, key)
        updated: ModelT | None = result.scalar_one_or_none()
        if updated is None:
            raise self.missing(key)
        return updated

    async def delete(self, session: AsyncSession, key: Any) -> None:
        """Delete a row for good, and take it out of the session.

        Raises:
            NotFoundError: there is none.
            ForeignKeyError: others point to it.
        """
        with self.errors():
            await session.flush()
            result: Any = await session.execute(delete(self.shape.table).where(self.shape.key == key))
        if not result.rowcount:
            raise self.missing(key)
        self.forget(session, key)

    async def read_back(self, session: AsyncSession, key: Any) -> ModelT:
        """Return a row as it is now, deleted or not, whatever the session knows of it."""
        statement = self._all.execution_options(populate_existing=True)
        found: ModelT = (await session.execute(statement, {KEY: key})).scalar_one()
        return found

    def forget(self, session: AsyncSession, key: Any) -> None:
        """Take a row that is gone out of the session."""
        loaded = session.sync_session.identity_map.get(inspect(self.shape.model).identity_key_from_primary_key((key,)))
        if loaded is not None:
            session.expunge(loaded)

    def missing(self, key: Any) -> NotFoundError:
        """Return the error for a row that is not there."""
        table = self.shape.table.name
        return NotFoundError(f"{table}: there is no row {str(key)[:60]!r}, or it is deleted", table=table)

    @asynccontextmanager
    async def kept(self, session: AsyncSession, changes: Mapping[str, Any]) -> AsyncIterator[None]:
        """Keep PostgreSQL's transaction alive where a key may turn out to be taken."""
        if session.get_bind().dialect.name == "postgresql" and not self.shape.unique_fields.isdisjoint(changes):
            async with session.begin_nested():
                yield
        else:
            yield

    def _insert_statement(self, names: tuple[str, ...], if_free: bool, returns: bool) -> Executable:
        table = self.shape.table
        new = {name: bindparam(VALUE + name, type_=table.c[name].type) for name in names}
        statement = postgresql.insert(table).on_conflict_do_nothing() if if_free else insert(table)
        statement = statement.values(new)
        if not returns:
            return statement
        return select(self.shape.model).from_statement(statement.returning(*table.c))

    def _update_statement(self, names: tuple[str, ...], include_deleted: bool, returns: bool) -> Executable:
        table = self.shape.table
        new = {name: bindparam(VALUE + name, type_=table.c[name].type) for name in names}
        statement = update(table).where(self.shape.key == bindparam(KEY)).values(new)
        if self.shape.is_soft and not include_deleted:
            statement = statement.where(table.c.is_deleted.is_(False))
        if not returns:
            return statement
        found = select(self.shape.model).from_statement(statement.returning(*table.c))
        return found.execution_options(populate_existing=True)


def _parameters(row: Mapping[str, Any]) -> dict[str, Any]:
    return {VALUE + name: value for name, value in row.items()}
