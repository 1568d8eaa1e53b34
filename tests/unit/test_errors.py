"""What drivers raise, judged without their servers (`tests/databases/test_errors.py` asks the servers)."""

import socket

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError

from db.errors import DatabaseUnavailable, first_line, is_transient, is_unique_violation, mysql_code, sqlstate


class PostgresError(Exception):
    """As asyncpg's: the code is an attribute."""

    def __init__(self, code: str) -> None:
        super().__init__(f"error {code}")
        self.sqlstate = code


def mysql_error(number: int, text: str) -> Exception:
    """As asyncmy's and pymysql's: the number is the first argument; asyncmy's have a vague SQLSTATE as well."""
    kind: type[Exception] = type("Error", (Exception,), {"__module__": "asyncmy.errors", "sqlstate": "HY000"})
    return kind(number, text)


def wrapped(cause: Exception, kind: type[DBAPIError] = OperationalError) -> DBAPIError:
    return kind("UPDATE tasks SET title = 'secret'", {"p": "secret"}, cause)


@pytest.mark.parametrize(
    "code", ["08006", "40001", "40P01", "53300", "53100", "55P03", "57014", "57P01", "57P03", "25006", "58030"]
)
def test_these_states_of_postgresql_pass(code: str) -> None:
    assert is_transient(wrapped(PostgresError(code)))
    assert is_transient(PostgresError(code))
    assert sqlstate(wrapped(PostgresError(code))) == code


@pytest.mark.parametrize("code", ["22001", "23505", "23503", "42601", "42P01", "28P01"])
def test_these_states_of_postgresql_do_not(code: str) -> None:
    assert not is_transient(wrapped(PostgresError(code)))


@pytest.mark.parametrize("number", [1021, 1040, 1053, 1114, 1205, 1213, 1290, 1317, 1927, 1969, 2002, 2003, 2006, 2013])
def test_these_numbers_of_mysql_pass(number: int) -> None:
    assert is_transient(wrapped(mysql_error(number, "text")))
    assert mysql_code(wrapped(mysql_error(number, "text"))) == number


@pytest.mark.parametrize("number", [1045, 1054, 1062, 1146, 1406, 1451, 1452])
def test_these_numbers_of_mysql_do_not(number: int) -> None:
    assert not is_transient(wrapped(mysql_error(number, "Lock wait timeout")))


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("database is locked", True),
        ("database table is locked: tasks", True),
        ("disk I/O error", True),
        ("database or disk is full", True),
        ("attempt to write a readonly database", True),
        ("no such table: tasks", False),
        ("UNIQUE constraint failed: users.username", False),
    ],
)
def test_texts_of_sqlite(text: str, passes: bool) -> None:
    assert is_transient(wrapped(Exception(text))) is passes


@pytest.mark.parametrize(
    "error",
    [
        DatabaseUnavailable("x"),
        ConnectionRefusedError(111, "refused"),
        socket.gaierror(-2, "Name or service not known"),
        InterfaceError("SELECT 1", {}, Exception("connection is closed")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_connection_that_is_not_there_passes(error: Exception) -> None:
    assert is_transient(error)


def test_a_cause_is_looked_at_too() -> None:
    outer = RuntimeError("outer")
    outer.__cause__ = PostgresError("40001")
    assert is_transient(outer)
    outer.__cause__ = outer  # and a circle ends
    assert not is_transient(outer)


def test_a_group_passes_if_all_of_its_errors_do() -> None:
    passing = ExceptionGroup("inner", [ConnectionResetError(104, "reset"), wrapped(PostgresError("40001"))])
    assert is_transient(ExceptionGroup("outer", [passing, TimeoutError()]))
    assert not is_transient(ExceptionGroup("outer", [passing, ValueError("x")]))


@pytest.mark.parametrize("error", [ValueError("database is locked"), FileNotFoundError(2, "x"), KeyError("40001")])
def test_other_errors_do_not_pass(error: Exception) -> None:
    assert not is_transient(error)


@pytest.mark.parametrize(
    ("cause", "taken"),
    [
        (PostgresError("23505"), True),
        (PostgresError("23503"), False),
        (mysql_error(1062, "Duplicate entry"), True),
        (mysql_error(1452, "Cannot add a child row"), False),
        (Exception("UNIQUE constraint failed: users.username"), True),
        (Exception("FOREIGN KEY constraint failed"), False),
    ],
)
def test_a_taken_key(cause: Exception, taken: bool) -> None:
    assert is_unique_violation(wrapped(cause, IntegrityError)) is taken
    assert not is_unique_violation(wrapped(cause))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (wrapped(Exception("first\nDETAIL: second")), "first"),
        (ValueError("  padded  "), "padded"),
        (ValueError(), "ValueError"),
        (ValueError("\n\n"), "ValueError"),
    ],
)
def test_the_line_shown_is_the_drivers_first_one(error: Exception, line: str) -> None:
    assert first_line(error) == line
