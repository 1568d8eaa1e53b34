"""Hashing passwords, off the event loop: one hash takes tens of milliseconds and 64 MiB."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

MAX_CHARACTERS: Final = 1024
"""A longer password is refused: hashing megabytes for anybody who sends them would be a gift."""
HASHES_AT_ONCE: Final = 4
"""Threads that hash at the same time: they bound the memory, and leave the other threads to the others."""

T = TypeVar("T")


class Passwords:
    """Argon2id with the parameters of RFC 9106, section 4 (its second choice: 64 MiB, 3 passes, 4 lanes).

    Args:
        hasher: other parameters; a hash carries those that it was made with.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="passwords")

    @cached_property
    def _decoy(self) -> str:
        return self._hasher.hash(b"nobody has this password")

    async def hash(self, password: str) -> str:
        """Return the hash to store.

        Raises:
            ValueError: the password is empty or longer than ``MAX_CHARACTERS``.
        """
        if not 1 <= len(password) <= MAX_CHARACTERS:
            raise ValueError(f"the password has {len(password)} characters: it takes 1 to {MAX_CHARACTERS}")
        return await self._in_thread(lambda: self._hasher.hash(_bytes(password)))

    async def matches(self, stored: str | None, password: str) -> bool:
        """Return whether a password is the one of a hash. It takes as long where there is no hash.

        Args:
            stored: the hash; None: there is no such user, or it cannot sign in.
            password: what was entered; one that is too long matches nothing.
        """
        usable = stored is not None and len(password) <= MAX_CHARACTERS
        return await self._in_thread(lambda: self._verify(stored if usable else None, password[:MAX_CHARACTERS]))

    def is_outdated(self, stored: str) -> bool:
        """Return whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def _verify(self, stored: str | None, password: str) -> bool:
        try:
            self._hasher.verify(self._decoy if stored is None else stored, _bytes(password))
        except (VerificationError, InvalidHashError):
            return False
        return stored is not None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")  # any text that a keyboard or a client makes is a password
