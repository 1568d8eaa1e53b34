"""Database URLs: which are taken, which driver they get, and that no password is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import URL

from db.urls import MEMORY_URL, has_usable_options, is_in_memory, is_local, masked, normalise_url

SERVER = "ada:p%40ss@db.example:6000/tasks?charset=utf8mb4"


@pytest.mark.parametrize(
    ("scheme", "driver"),
    [
        ("postgresql", "postgresql+asyncpg"),
        ("postgres", "postgresql+asyncpg"),
        ("postgresql+asyncpg", "postgresql+asyncpg"),
        ("mysql", "mysql+asyncmy"),
        ("mariadb", "mariadb+asyncmy"),
        ("mysql+asyncmy", "mysql+asyncmy"),
        ("mysql+aiomysql", "mysql+aiomysql"),
        ("mariadb+aiomysql", "mariadb+aiomysql"),
    ],
)
def test_a_server_gets_its_asynchronous_driver_and_nothing_else_changes(scheme: str, driver: str) -> None:
    url = normalise_url(f"{scheme}://{SERVER}")
    assert url == URL.create(driver, "ada", "p@ss", "db.example", 6000, "tasks", {"charset": "utf8mb4"})
    assert not is_in_memory(url)


@pytest.mark.parametrize("text", ["sqlite:////data/holdfast.db", "sqlite+aiosqlite:////data/holdfast.db"])
def test_a_file(text: str) -> None:
    assert normalise_url(text) == URL.create("sqlite+aiosqlite", database="/data/holdfast.db")


@pytest.mark.parametrize("text", [":memory:", " :memory: ", "sqlite://", "sqlite:///:memory:", "sqlite+aiosqlite://"])
def test_a_database_in_memory(text: str) -> None:
    assert normalise_url(text) == MEMORY_URL
    assert is_in_memory(normalise_url(text))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "is not a database URL: it reads like postgresql://user:password@host:5432/name"),
        ("canary", "is not a database URL"),
        ("ada:canary@host/tasks", "is not a database URL"),
        ("postgresql://ada:canary@host:port/tasks", "is not a database URL"),
        (
            "mongodb://ada:canary@host/tasks",
            "begins with mongodb:// but must begin with one of postgresql://, mysql://",
        ),
        ("postgresql+psycopg2://ada:canary@host/tasks", r"begins with postgresql\+psycopg2:// but must begin"),
        ("sqlite+pysqlite:////data/holdfast.db", r"begins with sqlite\+pysqlite:// but must begin"),
        ("postgresql://ada:canary@host", "names no database: add it behind the host"),
        ("mysql://ada:canary@host/", "names no database"),
    ],
)
def test_what_is_not_supported_is_refused_without_repeating_it(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule) as caught:
        normalise_url(text)
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    [
        ":memory:",
        "sqlite:////data/holdfast.db?timeout=3",
        "sqlite:///file:/data/holdfast.db?uri=true&mode=rwc",
        "postgresql://host/tasks?ssl=require&timeout=3&prepared_statement_cache_size=0&server_settings=x",
        "postgresql:///tasks?host=/run/postgresql&user=ada",
        "mysql://host/tasks?connect_timeout=3&charset=utf8mb4&ssl_ca=/etc/ca.pem",
        "mariadb+aiomysql://host/tasks?unix_socket=/run/mysqld.sock",
    ],
)
def test_options_that_the_driver_knows_are_usable(text: str) -> None:
    assert has_usable_options(normalise_url(text))


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://ada:canary-1@host/tasks",
        "postgresql://ada:ca%40nary-1@host/tasks",
        "postgresql://host/tasks?user=ada&password=canary-1",
        "mysql+aiomysql://host/tasks?passwd=canary-1&ssl_key_password=canary-1",
    ],
)
def test_a_shown_url_has_no_password(text: str) -> None:
    shown = masked(normalise_url(text))
    assert "nary" not in shown
    assert "***" in shown or "=hidden" in shown
    assert "host/tasks" in shown


def test_a_shown_url_without_a_password_is_whole() -> None:
    assert masked(normalise_url("postgresql://host:6000/tasks?ssl=require")) == (
        "postgresql+asyncpg://host:6000/tasks?ssl=require"
    )


@pytest.mark.parametrize(
    ("text", "here"),
    [
        ("sqlite:////data/holdfast.db", True),
        ("postgresql://localhost/tasks", True),
        ("mysql://127.0.0.1:3307/tasks", True),
        ("postgresql://[::1]/tasks", True),
        ("postgresql:///tasks?host=/run/postgresql", True),
        ("postgresql:///tasks?host=localhost:5433", True),
        ("postgresql://db.example/tasks", False),
        ("postgresql:///tasks?host=db.example", False),
        ("postgresql://localhost/tasks?host=db.example:5432", False),
        ("postgresql:///tasks?host=localhost:1&host=db.example:1", False),
        ("postgresql:///tasks?host=localhost,db.example", False),
        ("mysql://localhost/tasks?host=db.example", False),
    ],
)
def test_whether_a_database_is_on_this_machine(text: str, here: bool) -> None:
    assert is_local(normalise_url(text)) is here


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8))
def test_no_password_is_ever_shown(password: str) -> None:
    url = URL.create("postgresql", "u", password, "h", 1, "d")
    normalised = normalise_url(url.render_as_string(hide_password=False))
    assert normalised.password == password
    assert masked(normalised) == "postgresql+asyncpg://u:***@h:1/d"
