"""A database that does not answer: what is Holdfast's own ends in time, and goes on with another connection."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from db import manager, tuning
from db.connection import (
    close_database,
    get_async_session,
    get_manager,
    get_reader,
    get_reading_session,
    initialize_database,
)
from db.errors import DatabaseSilent, DatabaseUnavailable, is_transient
from db.in_time import in_time
from db.settings import DatabaseSettings
from tests.queue.engine.proxy import Proxy

DEADLINE_S = 0.5
GIVEN_UP_S = 20.0
"""By then it must have been given up; nothing else ends it before the kernel does, after a quarter of an hour."""


@pytest.fixture(params=["postgres_url", "mariadb_url"])
def server_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def at_port(url: str, port: int) -> str:
    return make_url(url).set(host="127.0.0.1", port=port).render_as_string(hide_password=False)


@pytest.fixture
def proxy(server_url: str) -> Iterator[Proxy]:
    with Proxy(make_url(server_url).port or 0) as made:
        yield made


@pytest.fixture
async def pool(server_url: str, proxy: Proxy) -> AsyncIterator[None]:
    url = at_port(server_url, proxy.port)
    settings = DatabaseSettings(database_url=url, database_deadline_s=DEADLINE_S, _env_file=None)
    await initialize_database(settings, patience_s=10)
    yield
    proxy.switch(make_url(server_url).port or 0)  # what is still open is cut, so that closing the pool need not wait
    await close_database()


async def ask(statement: str = "SELECT 1") -> int:
    async with in_time(), get_async_session() as session:
        return int((await session.execute(text(statement))).scalar_one())


@pytest.mark.usefixtures("pool")
async def test_a_transaction_on_a_connection_whose_packets_vanish_ends_in_time(proxy: Proxy) -> None:
    assert await ask() == 1
    began = time.monotonic()

    async def ask_and_lose_the_answer() -> None:
        async with in_time(), get_async_session() as session:
            await session.execute(text("SELECT 1"))
            assert proxy.swallow() >= 2
            await session.execute(text("SELECT 1"))

    with pytest.raises(DatabaseSilent, match="DATABASE_DEADLINE_S") as caught:
        await ask_and_lose_the_answer()
    assert time.monotonic() - began < GIVEN_UP_S
    assert is_transient(caught.value)
    assert await ask() == 1


@pytest.mark.usefixtures("pool")
async def test_a_connection_that_went_silent_in_the_pool_is_given_up(proxy: Proxy) -> None:
    assert await ask() == 1
    proxy.swallow()
    with pytest.raises(DatabaseSilent):
        await ask()
    assert await ask() == 1


@asynccontextmanager
async def connected() -> AsyncIterator[AsyncConnection]:
    async with get_manager().get_connection() as connection:
        yield connection


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("opened", [get_async_session, get_reading_session, get_reader, connected])
@pytest.mark.parametrize("fails", [False, True])
async def test_one_that_falls_silent_before_its_end_holds_up_nobody(
    opened: Callable[[], AbstractAsyncContextManager[Any]],
    proxy: Proxy,
    *,
    fails: bool,
) -> None:
    """The last statement was answered, the rollback or the commit behind it is not."""

    async def use() -> None:
        async with in_time(), opened() as connection:
            await connection.execute(text("SELECT 1"))
            assert proxy.swallow() >= 1
            if fails:
                raise LookupError

    with suppress(DatabaseSilent, LookupError):
        async with asyncio.timeout(GIVEN_UP_S):
            await use()
    await ask_twice()
    assert get_manager().pool_figures().checked_out == 0


@pytest.mark.usefixtures("pool")
async def test_nor_does_one_that_is_given_up_while_it_waits_for_something_else(proxy: Proxy) -> None:
    """The deadline of the block is over by then."""

    async def use() -> None:
        async with in_time(), get_reader() as reader:
            await reader.execute(text("SELECT 1"))
            proxy.swallow()
            await asyncio.Event().wait()

    with pytest.raises(DatabaseSilent):
        async with asyncio.timeout(GIVEN_UP_S):
            await use()
    await ask_twice()


async def ask_twice() -> None:
    """Where nothing was rolled back, the silent connection is in the pool still."""
    with suppress(DatabaseSilent):
        await ask()
    assert await ask() == 1


@pytest.mark.usefixtures("pool")
async def test_another_time_limit_inside_is_not_taken_for_silence() -> None:
    with pytest.raises(TimeoutError) as caught:
        async with in_time(60), asyncio.timeout(0.01):
            await asyncio.Event().wait()
    assert not isinstance(caught.value, DatabaseSilent)


async def test_a_server_that_takes_connections_and_says_nothing_is_given_up(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "CONNECT_TIMEOUT_S", DEADLINE_S)
    monkeypatch.setattr(manager, "FIRST_ANSWER_S", 2 * GIVEN_UP_S)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = DatabaseSettings(database_url=at_port(server_url, silent.getsockname()[1]), _env_file=None)
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="no connection"):
            await initialize_database(settings)
    assert time.monotonic() - began < GIVEN_UP_S
