"""What users and tasks look like at the edge of a service: pydantic models for making, reading and changing them."""

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from db.json_text import to_json_text
from db.models.task import TaskStatus
from db.types import checked_text
from holdfast.outbox import EARLIEST_YEAR


def _storable_text(value: str) -> str:
    checked_text(value)
    return value


def _storable_json(value: Any) -> Any:
    to_json_text(value)
    return value


def _storable_instant(value: datetime) -> datetime:
    try:
        in_utc = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is not of the years 1000 to 9999 (UTC)") from None
    if in_utc.year < EARLIEST_YEAR:
        raise ValueError("is not of the years 1000 to 9999 (UTC)")
    return in_utc


def _empty_is_none(value: object) -> object:
    return None if value == "" else value


_Storable = AfterValidator(_storable_text)
Text = Annotated[str, _Storable]
Instant = Annotated[AwareDatetime, AfterValidator(_storable_instant)]
Username = Annotated[str, Field(min_length=1, max_length=150), _Storable]
Title = Annotated[str, Field(min_length=1, max_length=255), _Storable]
Key = Annotated[str, Field(min_length=1, max_length=255), _Storable]
# One @ with something on both sides: more than that only the mail itself can tell.
Address = Annotated[str, Field(max_length=255, pattern=r"^[^@\s]+@[^@\s]+$"), _Storable]
Email = Annotated[
    Address | None,
    BeforeValidator(_empty_is_none),
]
Metadata = Annotated[dict[str, Any], AfterValidator(_storable_json)]
Tags = list[Annotated[str, Field(min_length=1), _Storable]]


class _Input(BaseModel):
    """What comes from outside: an unknown field is a mistake and is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Update(_Input):
    """A change: fields that are left out keep their value. ``changes()`` is for ``update_from_dict``."""

    @model_validator(mode="before")
    @classmethod
    def _no_null_where_a_value_must_be(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for name in sorted(_REQUIRED & values.keys() & cls.model_fields.keys()):
                if values[name] is None:
                    raise ValueError(f"{name} may not be null: give a value, or leave the field out")
        return values

    def changes(self) -> dict[str, Any]:
        """Return the fields that were given."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class _Output(BaseModel):
    """What is shown, made of an object of the model: ``UserRead.model_validate(user)``."""

    model_config = ConfigDict(from_attributes=True, frozen=True)


_REQUIRED = frozenset({"username", "is_active", "is_superuser", "title", "status", "user_id"})


class UserCreate(_Input):
    """A new user. The password is hashed by ``UserService``; without one nobody can sign in as it."""

    username: Username
    email: Email = None
    full_name: Annotated[str, Field(max_length=255), _Storable] | None = None
    password: Annotated[SecretStr, Field(min_length=1, max_length=1024)] | None = None
    is_active: bool = True
    is_superuser: bool = False


class UserUpdate(_Update):
    """A change of a user."""

    username: Username | None = None
    email: Email = None
    full_name: Annotated[str, Field(max_length=255), _Storable] | None = None
    password: Annotated[SecretStr, Field(min_length=1, max_length=1024)] | None = None
    is_active: bool | None = None
    is_superuser: bool | None = None


class UserRead(_Output):
    """A user, without anything of the password."""

    id: UUID
    username: str
    email: str | None
    full_name: str | None
    is_active: bool
    is_superuser: bool
    created_at: datetime
    updated_at: datetime


class TaskCreate(_Input):
    """A new task."""

    title: Title
    description: Text | None = None
    status: TaskStatus = TaskStatus.PENDING
    user_id: UUID
    completed_at: Instant | None = None
    external_key: Key | None = None
    metadata_json: Metadata | None = None
    tags: Tags | None = None


class TaskUpdate(_Update):
    """A change of a task."""

    title: Title | None = None
    description: Text | None = None
    status: TaskStatus | None = None
    user_id: UUID | None = None
    completed_at: Instant | None = None
    external_key: Key | None = None
    metadata_json: Metadata | None = None
    tags: Tags | None = None


class TaskRead(_Output):
    """A task."""

    id: UUID
    title: str
    description: str | None
    status: TaskStatus
    user_id: UUID
    completed_at: datetime | None
    external_key: str | None
    metadata_json: dict[str, Any] | None
    tags: list[str] | None
    created_at: datetime
    updated_at: datetime
    created_by: str | None
    updated_by: str | None
    is_deleted: bool
    deleted_at: datetime | None
