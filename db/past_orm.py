"""Statements past the ORM and most of Core, for what each run, and a worker that has nothing to do, executes.

Core looks a statement up, makes a context, a cursor and a result for each execution. Where the same short statement is
executed again and again that takes three times as long as the driver and the event loop together.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Self

from sqlalchemy import ClauseElement, Connection, Dialect, Select
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

from db.lost_connections import go_to_another, note_first_use

Processor = Callable[[Any], Any]


class DriverResult(NamedTuple):
    """What a statement has answered."""

    rows: Sequence[Any]
    """Of a ``select()`` with its columns as attributes, of anything else as the driver gives them."""
    rowcount: int
    """How many rows it has changed."""

    def one(self) -> Any:
        """Return the only row.

        Raises:
            ValueError: there is none, or another.
        """
        (row,) = self.rows
        return row

    def one_or_none(self) -> Any:
        """As ``one``, or None where there is no row."""
        return self.one() if self.rows else None


async def execute_past_orm(
    session: AsyncSession | AsyncConnection, statement: ClauseElement, values: Mapping[str, Any]
) -> DriverResult:
    """Execute a statement in the transaction of a session, which is not flushed before, or of a connection.

    Args:
        session: a session or a connection of the caller.
        statement: of tables and columns, without lists of values. Made once for the process: its words are kept.
        values: of its parameters; there may be others.
    """
    return await session.run_sync(_execute, statement, values)


def _execute(session: Session | Connection, statement: ClauseElement, values: Mapping[str, Any]) -> DriverResult:
    connection = session.connection() if isinstance(session, Session) else session
    return in_drivers_words(statement, connection.dialect).run(connection, values)


@lru_cache(maxsize=64)
def in_drivers_words(statement: ClauseElement, dialect: Dialect) -> "DriverStatement":
    """Return ``DriverStatement.of``, made once."""
    return DriverStatement.of(statement, dialect)


@dataclass(frozen=True, slots=True)
class DriverStatement:
    """A statement in the driver's own words, made once, for drivers whose parameters stand in an order."""

    sql: str
    parameters: tuple[tuple[str, Processor | None], ...]
    """Name, and what makes its value ready for the driver."""
    constants: Mapping[str, Any]
    """The values that the statement itself gives, ready for the driver, by the names of their parameters; another may
    be given in the place of each."""
    make_row: Callable[[Any], Any] | None
    """Makes a row of what the driver gives; None leaves it as it is."""

    @classmethod
    def of(cls, statement: ClauseElement, dialect: Dialect) -> Self:
        """Compile a statement, whose parameters have their types.

        Raises:
            ValueError: it has a list of values, whose words depend on their number, or values that SQLAlchemy computes
                for each execution, as a column's ``default``.
        """
        compiled: Any = statement.compile(dialect=dialect)
        binds = {name: compiled.binds[name] for name in compiled.positiontup}
        computes = getattr(compiled, "insert_prefetch", ()) or getattr(compiled, "update_prefetch", ())
        if compiled.post_compile_params or computes or any(bind.callable for bind in binds.values()):
            raise ValueError(f"a list of values, or one that is computed, has no words of its own: {compiled}")
        made = {name: bind.type.dialect_impl(dialect).bind_processor(dialect) for name, bind in binds.items()}
        given = {name: bind.value for name, bind in binds.items() if not bind.required}
        return cls(
            str(compiled),
            tuple((name, made[name]) for name in compiled.positiontup),
            {name: _ready(value, made[name]) for name, value in given.items()},
            _row_maker(statement, dialect) if isinstance(statement, Select) else None,
        )

    async def execute(self, session: AsyncSession, values: Mapping[str, Any]) -> DriverResult:
        """Execute it in the transaction of a session, which is not flushed before.

        Args:
            session: of the caller.
            values: of its parameters; there may be others.
        """
        return await session.run_sync(self._run, values)

    def _run(self, session: Session, values: Mapping[str, Any]) -> DriverResult:
        return self.run(session.connection(), values)

    def run(self, connection: Connection, values: Mapping[str, Any]) -> DriverResult:
        """Execute it on a connection, as ``execute``."""
        try:
            ready = tuple(
                _ready(values[name], made) if name in values else self.constants[name] for name, made in self.parameters
            )
        except Exception as error:
            cause = f"({type(error).__module__}.{type(error).__name__}) {error}"
            raise StatementError(cause, self.sql, None, error, hide_parameters=True) from error
        answer = _run_in_driver(connection, self.sql, ready)
        if self.make_row is None or not answer.rows:
            return answer
        return DriverResult([self.make_row(row) for row in answer.rows], answer.rowcount)


def as_python(kind: TypeEngine[Any], value: Any, dialect: Dialect) -> Any:
    """Return what a column of this type holds, where the driver gave ``value``."""
    return _ready(value, _result_processor(kind, dialect))


def _ready(value: Any, made: Processor | None) -> Any:
    return value if made is None else made(value)


def _result_processor(kind: TypeEngine[Any], dialect: Dialect) -> Processor | None:
    return kind.dialect_impl(dialect).result_processor(dialect, None)


def _row_maker(query: Select[Any], dialect: Dialect) -> Callable[[Any], Any]:
    columns = query.selected_columns
    row = namedtuple("row", columns.keys())  # type: ignore[misc] # its names are known here only
    made = {at: _result_processor(column.type, dialect) for at, column in enumerate(columns)}
    processed = [(at, processor) for at, processor in made.items() if processor is not None]

    def make(values: Any) -> Any:
        if not processed:
            return row._make(values)
        found = list(values)
        for at, processor in processed:
            found[at] = processor(found[at])
        return row._make(found)

    return make


def _run_in_driver(connection: Connection, sql: str, values: tuple[Any, ...]) -> DriverResult:
    if not connection.in_transaction():
        connection.begin()  # as Core does before a first statement
    if _is_heard(connection):
        return _run_in_core(connection, sql, values)
    dialect, cursor = connection.dialect, None
    try:
        cursor = connection.connection.cursor()
        _tell_of_changed_schema(dialect, cursor)
        dialect.do_execute(cursor, sql, values, None)  # the dialect's, as slow statements are timed around it
        answer = DriverResult(cursor.fetchall() if cursor.description else (), cursor.rowcount)
        cursor.close()
    except BaseException as failure:  # noqa: BLE001 - it is what Core does, with a cancellation as well
        if go_to_another(connection, sql, failure):
            return _run_in_core(connection, sql, values)
        note_first_use(connection)
        _learn_of_changed_schema(dialect, failure)
        shown = sql if isinstance(failure, dialect.loaded_dbapi.Error) else None  # others are raised as they are
        connection._handle_dbapi_exception(failure, shown, values, cursor, None)  # noqa: SLF001 - it has no other name
    note_first_use(connection)
    return answer


def _is_heard(connection: Connection) -> bool:
    """Whether somebody listens to statements, who would miss those that Core does not execute."""
    heard = connection.dispatch
    return bool(
        connection._echo  # noqa: SLF001 - the engine's echo, or its logger's level
        or heard.before_cursor_execute
        or heard.after_cursor_execute
        or heard.before_execute
        or heard.after_execute
    )


# asyncpg's statements are prepared once for a connection, and fail when a column of theirs has changed since. What
# SQLAlchemy's context does about that: https://docs.sqlalchemy.org/en/21/dialects/postgresql.html#asyncpg-prepared-statement-cache
def _tell_of_changed_schema(dialect: Any, cursor: Any) -> None:
    if dialect.driver == "asyncpg":
        cursor._invalidate_schema_cache_asof = dialect._invalidate_schema_cache_asof  # noqa: SLF001


def _learn_of_changed_schema(dialect: Any, failure: BaseException) -> None:
    driver = dialect.loaded_dbapi
    if dialect.driver == "asyncpg" and isinstance(
        failure, driver.InvalidCachedStatementError | driver.InternalServerError
    ):
        dialect._invalidate_schema_cache()  # noqa: SLF001


def _run_in_core(connection: Connection, sql: str, values: tuple[Any, ...]) -> DriverResult:
    result = connection.exec_driver_sql(sql, values)
    return DriverResult([tuple(row) for row in result] if result.returns_rows else (), result.rowcount)
