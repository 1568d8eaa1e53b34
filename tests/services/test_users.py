"""Users are made, sign in, and are taken out of service; their hashes stay where they are."""

import asyncio
from typing import Literal

import pytest
from argon2 import PasswordHasher
from pydantic import SecretStr

from db.connection import DatabaseManager, get_async_session
from db.errors import DuplicateKeyError, NotFoundError
from db.repositories.user import UserRepository
from db.schemas import UserCreate, UserRead
from holdfast.ids import uuid7
from services.passwords import MAX_CHARACTERS, Passwords
from services.users import UserService

QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
SERVICE = UserService(Passwords(QUICK))
PASSWORD = "correct horse"
ODD_PASSWORDS = ["x", "\x00", "a\x00b", "\ud800", "päss wörd\n", "x" * MAX_CHARACTERS, "' OR 1=1 --"]


def ada(password: str | None = PASSWORD, **values: object) -> UserCreate:
    secret = None if password is None else SecretStr(password)
    return UserCreate.model_validate({"username": "ada", "password": secret, **values})


async def hash_of(username: str) -> str | None:
    async with get_async_session(read_only=True) as session:
        user = await UserRepository().get_by_username(session, username)
        assert user is not None
        return user.hashed_password


async def verified(username: str, password: str, service: UserService = SERVICE) -> UserRead | None:
    async with get_async_session() as session:
        return await service.verify(session, username, password)


async def test_who_is_made_can_sign_in(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        made = await SERVICE.create(session, ada(email="ada@example.org", full_name="Ada"))
    assert (made.username, made.email, made.full_name, made.is_active, made.is_superuser) == (
        "ada",
        "ada@example.org",
        "Ada",
        True,
        False,
    )
    assert await verified("ada", "correct horse") == made
    for username, password in (("ada", "wrong"), ("Ada", "correct horse"), ("eve", "correct horse"), ("ada", "")):
        assert await verified(username, password) is None


async def test_no_answer_holds_the_hash(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        made = await SERVICE.create(session, ada())
        answers = [
            made,
            await SERVICE.verify(session, "ada", "correct horse"),
            await SERVICE.set_password(session, made.id, "another"),
            await SERVICE.deactivate(session, made.id),
        ]
        user = await UserRepository().get(session, made.id)
    stored = await hash_of("ada")
    assert stored is not None
    assert stored.startswith("$argon2id$")
    assert "correct horse" not in stored
    for answer in answers:
        assert "argon2" not in repr(answer)
    assert "argon2" not in repr(user)


async def test_odd_passwords_are_passwords(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        made = await SERVICE.create(session, ada())
    for password in ODD_PASSWORDS:
        async with get_async_session() as session:
            await SERVICE.set_password(session, made.id, password)
        assert await verified("ada", password) is not None
        assert await verified("ada", f"{password}x") is None


async def test_who_cannot_sign_in(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        await SERVICE.create(session, ada(None))
        bob = await SERVICE.create(session, ada(username="bob"))
        assert (await SERVICE.deactivate(session, bob.id)).is_active is False
    assert await hash_of("ada") is None
    for password in ("", "correct horse", "nobody has this password"):
        assert await verified("ada", password) is None
        assert await verified("bob", password) is None
        assert await verified("eve", password) is None


async def test_a_taken_name_and_a_missing_user(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        await SERVICE.create(session, ada())
        with pytest.raises(DuplicateKeyError, match=r"users\.username"):
            await SERVICE.create(session, ada())
        for refused in (SERVICE.deactivate(session, uuid7()), SERVICE.set_password(session, uuid7(), "x")):
            with pytest.raises(NotFoundError):
                await refused


@pytest.mark.parametrize("password", ["", "x" * (MAX_CHARACTERS + 1)])
async def test_a_password_of_no_length_or_too_much(password: str) -> None:
    with pytest.raises(ValueError, match=f"has {len(password)} characters: it takes 1 to 1024"):
        await Passwords(QUICK).hash(password)
    assert not await Passwords(QUICK).matches(await Passwords(QUICK).hash("x"), password)


async def test_an_outdated_hash_is_replaced(manager: DatabaseManager) -> None:
    async with get_async_session() as session:
        await SERVICE.create(session, ada())
    before = await hash_of("ada")
    stronger = UserService(Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)))
    assert await verified("ada", "wrong", stronger) is None
    assert await hash_of("ada") == before
    assert await verified("ada", "correct horse", stronger) is not None
    after = await hash_of("ada")
    assert after is not None
    assert after != before
    assert "m=16,t=2" in after
    assert await verified("ada", "correct horse", stronger) is not None
    assert await hash_of("ada") == after


async def test_a_damaged_hash_matches_nothing() -> None:
    assert not await Passwords(QUICK).matches("not a hash", "x")


class Counting(PasswordHasher):
    """Counts what it verifies, and with which parameters."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified: list[str] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002 - its name there
        self.verified.append(str(hash).rsplit("$", 2)[0])
        return super().verify(hash, password)


async def test_an_unknown_user_costs_what_a_known_one_does(manager: DatabaseManager) -> None:
    """By the work that is done: a clock would tell of the machine."""
    hasher = Counting()
    service = UserService(Passwords(hasher))
    async with get_async_session() as session:
        await service.create(session, ada())
        await service.create(session, ada(None, username="bob"))
    for username in ("ada", "bob", "eve"):
        hasher.verified.clear()
        assert await verified(username, "wrong", service) is None
        assert hasher.verified == ["$argon2id$v=19$m=8,t=1,p=1"]


async def test_the_event_loop_goes_on_while_a_password_is_hashed() -> None:
    slow, turns = Passwords(PasswordHasher(time_cost=8, memory_cost=65_536)), 0
    hashing = asyncio.ensure_future(slow.hash("x"))
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 10
