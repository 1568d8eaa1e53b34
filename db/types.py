"""Column types that behave the same on PostgreSQL, MySQL/MariaDB and SQLite."""

from typing import Any
from uuid import UUID

from sqlalchemy import Dialect, String, Text, Uuid
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

from db.collations import table_collation
from db.smart_json import SmartJSON
from holdfast.outbox import NAMING_CONVENTION, UtcDateTime, json_column_type, utc_now, uuid7

__all__ = [
    "NAMING_CONVENTION",
    "LongText",
    "ShortText",
    "SmartJSON",
    "UUIDType",
    "UtcDateTime",
    "json_column_type",
    "long_text_type",
    "table_collation",
    "utc_now",
    "uuid7",
]


def long_text_type() -> TypeEngine[str]:
    """Return a text type without a practical limit; MySQL's TEXT would end at 64 KiB."""
    return Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


class UUIDType(TypeDecorator[UUID]):
    """A UUID: ``uuid`` on PostgreSQL and MariaDB, 32 hexadecimal digits elsewhere. Takes its text form, too.

    Refused on every engine is what MariaDB 10.11's type refuses: a version of 8 or more with a ninth byte, which begins
    with the variant, of 0x80 or less (tried byte by byte). Versions 1 to 7 are not touched by it.
    """

    impl = Uuid
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> UUID | None:
        """Return the UUID.

        Raises:
            ValueError: the value is none, or one that MariaDB cannot hold.
        """
        del dialect
        if value is None:
            return None
        try:
            found = value if isinstance(value, UUID) else UUID(value)
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"{value!r} is no UUID: pass one, or its text of 32 hexadecimal digits") from None
        if found.int >> 79 & 1 and found.int >> 56 & 0xFF <= 0x80:
            raise ValueError(f"{found} has a version and a variant that MariaDB cannot hold together: store it as text")
        return found


class ShortText(TypeDecorator[str]):
    """Text of at most ``length`` characters.

    Refused before it is sent are a NUL, which PostgreSQL cannot store, and half a surrogate pair, which is no text.
    The length is checked by the engine; on SQLite by a CHECK, which the models' bases add.
    """

    impl = String
    cache_ok = True

    def __init__(self, length: int) -> None:
        super().__init__(length)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text.

        Raises:
            ValueError: it holds a NUL or half a surrogate pair.
        """
        del dialect
        return checked_text(value)


class LongText(TypeDecorator[str]):
    """As ``ShortText``, without a practical limit (4 GiB on MySQL, 1 GB on the others)."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[str]:
        """Return ``LONGTEXT`` on MySQL and MariaDB, whose ``TEXT`` ends at 64 KiB."""
        return mysql.LONGTEXT() if dialect.name in {"mysql", "mariadb"} else Text()

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the text.

        Raises:
            ValueError: it holds a NUL or half a surrogate pair.
        """
        del dialect
        return checked_text(value)


def checked_text(value: Any) -> str | None:
    """Return the text if every engine can store it.

    Raises:
        ValueError: it holds a NUL or half a surrogate pair (the message says where), or is no text.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is a {type(value).__name__} and no text: convert it")  # noqa: TRY004 - of the others' kind
    if (place := value.find("\x00")) >= 0:
        raise ValueError(f"the text holds a NUL at position {place}, which PostgreSQL cannot store: take it out")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the text holds half a surrogate pair at position {error.start}, which is no character: take it out"
            ) from None
    return value
