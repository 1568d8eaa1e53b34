"""Users: making them, signing them in, taking them out of service."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.repositories.user import UserRepository
from db.schemas import UserCreate, UserRead
from services.passwords import Passwords


class UserService:
    """The rules of users. What it returns never holds a hash.

    Args:
        passwords: how they are hashed; make one for the whole process.
    """

    def __init__(self, passwords: Passwords | None = None) -> None:
        self._users = UserRepository()
        self._passwords = passwords or Passwords()

    async def create(self, session: AsyncSession, new: UserCreate) -> UserRead:
        """Make a user; without a password nobody can sign in as it.

        Raises:
            DuplicateKeyError: the username or the email is taken.
        """
        values = new.model_dump(exclude={"password"})
        if new.password is not None:
            values["hashed_password"] = await self._passwords.hash(new.password.get_secret_value())
        return UserRead.model_validate(await self._users.create(session, **values))

    async def verify(self, session: AsyncSession, username: str, password: str) -> UserRead | None:
        """Return the user whose name and password these are, None if they are nobody's.

        It takes as long for a name that does not exist, so that nobody learns which do. A hash with outdated
        parameters is replaced.

        Args:
            session: one that may write.
            username: as it was entered.
            password: as it was entered.
        """
        user = await self._users.get_by_username(session, username)
        stored = user.hashed_password if user is not None and user.is_active else None
        if not await self._passwords.matches(stored, password) or user is None or stored is None:
            return None
        if self._passwords.is_outdated(stored):
            await self.set_password(session, user.id, password)
        return UserRead.model_validate(user)

    async def set_password(self, session: AsyncSession, user_id: UUID, password: str) -> UserRead:
        """Give a user another password.

        Raises:
            NotFoundError: there is no such user.
            ValueError: the password is empty or too long.
        """
        hashed = await self._passwords.hash(password)
        return UserRead.model_validate(await self._users.update(session, user_id, hashed_password=hashed))

    async def deactivate(self, session: AsyncSession, user_id: UUID) -> UserRead:
        """Take a user out of service: nobody signs in as it, and it is given no more tasks. What it has it keeps.

        Raises:
            NotFoundError: there is no such user.
        """
        return UserRead.model_validate(await self._users.update(session, user_id, is_active=False))
