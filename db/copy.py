"""The fastest way into a table that each engine has, behind one call.

PostgreSQL takes a binary COPY. MySQL and MariaDB take INSERTs of many rows each: LOAD DATA LOCAL would need a server
and a client that allow it, lets that server ask for any file of this machine, and turns bad values and duplicate keys
into warnings. SQLite takes one prepared INSERT for all rows. All of it is part of the session's transaction.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import Column, Dialect, Table, inspect
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapper

ROWS_PER_CALL: Final = 5000
"""Rows that are handed to the drivers of MySQL, MariaDB and SQLite at a time; so many are in memory."""

Row = Mapping[str, Any]


class RowsDiffer(ValueError):  # noqa: N818
    """A row has other columns than the first one."""


async def copy_rows(session: AsyncSession, target: Table | type[DeclarativeBase], rows: Iterable[Row]) -> int:
    """Load rows in the session's transaction; returns how many.

    Each value passes the type of its column, as in any other statement. What has a default in Python gets it; what a
    row leaves out otherwise is left to the database's own default. Nothing is told to the objects of the session.

    Args:
        session: its pending objects are written first.
        target: a table, or the model of one.
        rows: by the columns' names; all have the columns of the first. They are read as they are sent.

    Raises:
        ValueError: a column that the table does not have.
        RowsDiffer: a row with other columns than the first.
        sqlalchemy.exc.StatementError: a value that its column's type or the driver does not take.
        sqlalchemy.exc.DBAPIError: the database refused; the transaction has to be rolled back.
    """
    table = target if isinstance(target, Table) else _table_of(target)
    remaining = iter(rows)
    first = next(remaining, None)
    if first is None:
        return 0
    await session.flush()
    connection = await session.connection()
    load = _Load.of(table, list(first), connection.dialect)
    records = load.records(chain([first], remaining))
    if connection.dialect.name == "postgresql":
        await _copy(connection, load, records)
    else:
        await _insert(connection, load, records)
    return load.count


def _table_of(model: type[DeclarativeBase]) -> Table:
    mapper: Mapper[Any] = inspect(model)
    table = mapper.local_table
    assert isinstance(table, Table)  # noqa: S101 - a model of ours is one table
    return table


@dataclass(slots=True)
class _Load:
    """One table's columns, and what turns a row into a record for the driver."""

    table: Table
    names: list[str]
    columns: list[Column[Any]]
    processors: Sequence[Callable[[Any], Any] | None]
    defaults: list[Callable[[], Any]]
    count: int = 0

    @classmethod
    def of(cls, table: Table, names: list[str], dialect: Dialect) -> "_Load":
        unknown = [name for name in names if name not in table.c]
        if unknown:
            raise ValueError(f"{table.name} has no column {', '.join(unknown)}: name columns of the table")
        filled = {column: default for column in table.c if column.key not in names and (default := _default(column))}
        columns = [*(table.c[name] for name in names), *filled]
        processors = [column.type.dialect_impl(dialect).bind_processor(dialect) for column in columns]
        return cls(table, names, columns, processors, list(filled.values()))

    @property
    def column_names(self) -> list[str]:
        return [column.name for column in self.columns]

    def records(self, rows: Iterable[Row]) -> Iterator[tuple[Any, ...]]:
        names, defaults, expected = self.names, self.defaults, dict.fromkeys(self.names).keys()
        processors = [(place, process) for place, process in enumerate(self.processors) if process is not None]
        for row in rows:
            self.count += 1
            if row.keys() != expected:
                odd = ", ".join(sorted(set(names) ^ set(row)))
                raise RowsDiffer(
                    f"row {self.count} for {self.table.name} differs from the first one in {odd}: give all rows the "
                    "same columns"
                )
            values = [row[name] for name in names]
            values += [default() for default in defaults]
            try:
                for place, process in processors:
                    values[place] = process(values[place])
            except (TypeError, ValueError, OverflowError, AttributeError, LookupError) as error:
                raise self.unfit(error) from error
            yield tuple(values)

    def unfit(self, error: Exception) -> StatementError:
        """Return the error for a value that cannot even be sent."""
        return StatementError(f"row {self.count} for {self.table.name}: {error}", None, None, error)


def _default(column: Column[Any]) -> Callable[[], Any] | None:
    default: Any = column.default
    if default is None or not (default.is_scalar or default.is_callable):
        return None  # the database has to think of a value
    return (lambda: default.arg(None)) if default.is_callable else (lambda: default.arg)


async def _copy(connection: AsyncConnection, load: _Load, records: Iterator[tuple[Any, ...]]) -> None:
    raw = await connection.get_raw_connection()
    driver: Any = raw.driver_connection
    if not driver.is_in_transaction():
        # SQLAlchemy begins with its first statement, and COPY goes past it.
        await connection.exec_driver_sql("SELECT 1")
        raw = await connection.get_raw_connection()
        driver = raw.driver_connection
    table, columns = load.table, load.column_names
    try:
        await driver.copy_records_to_table(table.name, records=records, columns=columns, schema_name=table.schema)
    except (StatementError, RowsDiffer):
        raise
    except Exception as error:
        translated = _translated(error, raw.dbapi_connection)
        if not isinstance(translated, connection.dialect.loaded_dbapi.Error):
            raise load.unfit(error) from error  # the driver could not even send it
        raise DBAPIError.instance(
            f"COPY {table.name} ({', '.join(columns)}) FROM STDIN",
            None,
            translated,
            connection.dialect.loaded_dbapi.Error,
            connection_invalidated=driver.is_closed(),
            dialect=connection.dialect,
        ) from translated


def _translated(error: Exception, adapted: Any) -> Exception:
    try:
        adapted._handle_exception(error)  # noqa: SLF001 - what SQLAlchemy does with any other statement's error
    except Exception as translated:  # noqa: BLE001 - it raises what it returns
        return translated
    return error


async def _insert(connection: AsyncConnection, load: _Load, records: Iterator[tuple[Any, ...]]) -> None:
    dialect = connection.dialect
    prepare: Any = dialect.identifier_preparer
    place = "?" if dialect.paramstyle == "qmark" else "%s"
    names = [prepare.quote(name).replace("%", "%%" if place == "%s" else "%") for name in load.column_names]
    places = ", ".join([place] * len(names))
    statement = f"INSERT INTO {prepare.format_table(load.table)} ({', '.join(names)}) VALUES ({places})"  # noqa: S608
    while block := list(islice(records, ROWS_PER_CALL)):
        await connection.exec_driver_sql(statement, block)
