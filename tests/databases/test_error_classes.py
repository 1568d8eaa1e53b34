"""Each kind of refusal is one class on every engine, with the place where it happened."""

import asyncio
import pickle

import pytest
from sqlalchemy import Executable, delete, insert, select, text

from db.base import Base
from db.connection import DatabaseManager, get_async_session
from db.error_mapping import errors_named, translate
from db.errors import (
    CheckError,
    ConnectionLostError,
    DatabaseBusy,
    DataLayerError,
    DeadlockError,
    DuplicateKeyError,
    ForeignKeyError,
    InvalidInputError,
    LockTimeoutError,
    NotNullError,
    ReadOnlyError,
    ValueTooLongError,
    is_transient,
    is_unique_violation,
    is_unstorable,
)
from db.models import Task, User
from holdfast.ids import uuid7


async def refused(*statements: Executable | str, table: str | None = None) -> DataLayerError:
    """Run statements in one session and return what the last one was refused with."""
    with pytest.raises(DataLayerError) as caught:
        await attempt(*statements, table=table)
    assert "\n" not in str(caught.value)
    assert "canary" not in str(caught.value)
    return caught.value


async def attempt(*statements: Executable | str, table: str | None = None) -> None:
    async with get_async_session() as session:
        with errors_named(Base.metadata, table=table):
            for statement in statements:
                await session.execute(text(statement) if isinstance(statement, str) else statement)


def place(error: DataLayerError) -> tuple[str | None, tuple[str, ...], str | None]:
    return error.table, error.columns, error.constraint


async def test_a_taken_key(manager: DatabaseManager) -> None:
    user = insert(User).values(username="canary's 'key' for key 'x'")
    error = await refused(user, user)
    assert isinstance(error, DuplicateKeyError)
    assert place(error) == ("users", ("username",), "uq_users_username")
    assert str(error).startswith("users.username (uq_users_username): this key is taken")
    assert (error.column, error.can_retry, error.deleted_id) == ("username", False, None)
    assert is_unique_violation(error)
    assert not is_transient(error)


async def test_a_taken_primary_key(manager: DatabaseManager) -> None:
    key = uuid7()
    error = await refused(*(insert(User).values(id=key, username=name) for name in "ab"), table="users")
    assert isinstance(error, DuplicateKeyError)
    assert place(error) == ("users", ("id",), "pk_users")


async def test_a_missing_parent(manager: DatabaseManager) -> None:
    error = await refused(insert(Task).values(title="canary", user_id=uuid7()), table="tasks")
    assert isinstance(error, ForeignKeyError)
    assert error.table == "tasks"
    if manager.engine.dialect.name != "sqlite":  # which tells nothing
        assert place(error) == ("tasks", ("user_id",), "fk_tasks_user_id_users")


async def test_a_broken_check(manager: DatabaseManager) -> None:
    statements = (
        insert(User).values(username="a"),
        insert(Task).from_select(
            ["id", "title", "user_id", "status"], select(User.id, User.username, User.id, text("'canary'"))
        ),
    )
    error = await refused(*statements)
    assert isinstance(error, CheckError)
    assert (error.table, error.constraint) == ("tasks", "ck_tasks_status")
    assert is_unstorable(error)


@pytest.mark.parametrize("has_key", [True, False], ids=["NULL", "left out"])
async def test_a_missing_value(manager: DatabaseManager, has_key: bool) -> None:
    statement = insert(User).values(username=None, full_name="canary")
    left_out = "INSERT INTO users (id) VALUES ('019aa000000070008000000000000000')"
    error = await refused(statement if has_key else left_out, table="users")
    assert isinstance(error, NotNullError)
    assert place(error) == ("users", ("username",), None)


async def test_a_text_that_is_too_long(manager: DatabaseManager) -> None:
    error = await refused(insert(User).values(username="canary" * 30), table="users")
    assert isinstance(error, ValueTooLongError)
    assert error.table == "users"
    assert error.columns == (() if manager.engine.dialect.name == "postgresql" else ("username",))
    assert is_unstorable(error)


async def test_a_text_that_is_none(manager: DatabaseManager) -> None:
    error = await refused(insert(User).values(username="canary\ud800"), table="users")
    assert isinstance(error, InvalidInputError)
    assert not error.can_retry


async def test_json_that_is_none(manager: DatabaseManager) -> None:
    user = uuid7()
    task = insert(Task).values(title="canary", user_id=user, metadata_json={"words": {"canary"}})
    error = await refused(insert(User).values(id=user, username="a"), task, table="tasks")
    assert isinstance(error, InvalidInputError)
    assert str(error) == "tasks: $.words is a set, which JSON does not have: convert it to text or a list"


async def test_a_change_where_only_reading_is_allowed(manager: DatabaseManager) -> None:
    before = {
        "postgresql": ("SET TRANSACTION READ ONLY",),
        "mariadb": ("COMMIT", "START TRANSACTION READ ONLY"),
        "sqlite": ("PRAGMA query_only = 1",),
    }[manager.engine.dialect.name]
    error = await refused(*before, insert(User).values(username="canary"), table="users")
    assert isinstance(error, ReadOnlyError)
    assert is_transient(error)


async def test_a_lock_that_does_not_come(manager: DatabaseManager) -> None:
    change = "UPDATE users SET full_name = 'canary'"
    await attempt(insert(User).values(username="ada"))
    shorter = {
        "postgresql": ("SET LOCAL lock_timeout = '50ms'", change),
        "mariadb": (f"SET STATEMENT innodb_lock_wait_timeout = 0 FOR {change}",),
    }
    async with manager.engine.connect() as holder:
        await holder.execute(text(change))
        if manager.engine.dialect.name == "sqlite":
            await hurried_sqlite(manager)
            return
        error = await refused(*shorter[manager.engine.dialect.name])
    assert isinstance(error, LockTimeoutError)
    assert is_transient(error)


async def hurried_sqlite(manager: DatabaseManager) -> None:
    async with manager.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute("PRAGMA busy_timeout = 1")
        with pytest.raises(LockTimeoutError), errors_named():
            await connection.execute(text("SELECT 1"))  # BEGIN IMMEDIATE


async def test_a_turn_that_does_not_come_is_a_lock_that_does_not() -> None:
    assert isinstance(translate(DatabaseBusy("x")), LockTimeoutError)


async def test_a_deadlock(manager: DatabaseManager) -> None:
    if manager.engine.dialect.name == "sqlite":
        return  # it has one writer and so no deadlock
    await attempt(*(insert(User).values(username=name) for name in ("ada", "bob")))
    both_hold_one = asyncio.Barrier(2)

    async def lock(*names: str) -> None:
        async with get_async_session() as session:
            with errors_named():
                for name in names:
                    await session.execute(select(User).where(User.username == name).with_for_update())
                    if name == names[0]:
                        await both_hold_one.wait()

    answers = await asyncio.gather(lock("ada", "bob"), lock("bob", "ada"), return_exceptions=True)
    (victim,) = [answer for answer in answers if answer is not None]
    assert isinstance(victim, DeadlockError)
    assert is_transient(victim)


async def test_a_connection_that_the_server_ended(manager: DatabaseManager) -> None:
    if manager.engine.dialect.name == "sqlite":
        return  # it has no server
    own, end = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({}, 10000)"),
        "mariadb": ("SELECT connection_id()", "KILL {}"),
    }[manager.engine.dialect.name]
    with pytest.raises(ConnectionLostError) as caught:
        await cut_off(manager, own, end)
    assert is_transient(caught.value)


async def cut_off(manager: DatabaseManager, own: str, end: str) -> None:
    async with get_async_session() as session:
        number = (await session.execute(text(own))).scalar_one()
        async with manager.engine.connect() as other:
            await other.execute(text(end.format(number)))
        with errors_named():
            await session.execute(delete(User))


def test_other_errors_stay_as_they_are() -> None:
    error = ValueError("x")
    assert translate(error) is error


async def test_a_wrong_statement_stays_as_it_is(manager: DatabaseManager) -> None:
    with pytest.raises(Exception, match="nowhere") as caught:
        await attempt("SELECT * FROM nowhere")
    assert not isinstance(caught.value, DataLayerError)


def test_an_error_survives_a_pickle() -> None:
    error = DuplicateKeyError("taken", table="users", columns=("username",), constraint="uq_users_username")
    error.deleted_id = 5
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(copy), place(copy), copy.deleted_id) == ("taken", place(error), 5)
