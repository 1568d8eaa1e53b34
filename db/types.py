"""Column types that behave the same on PostgreSQL, MySQL/MariaDB and SQLite."""

from sqlalchemy import Text
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.compiler import DDLCompiler
from sqlalchemy.types import TypeEngine

from holdfast.outbox import NAMING_CONVENTION, UtcDateTime, json_column_type, utc_now

__all__ = ["NAMING_CONVENTION", "UtcDateTime", "json_column_type", "long_text_type", "table_collation", "utc_now"]


def long_text_type() -> TypeEngine[str]:
    """Return a text type without a practical limit; MySQL's TEXT would end at 64 KiB."""
    return Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")


def table_collation(*, is_mariadb: bool) -> str:
    """Return the collation of every table: it compares bytes and does not take 'x' and 'x ' for one key."""
    return "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"


@compiles(CreateTable, "mysql", "mariadb")
def _create_table_with_collation(element: CreateTable, compiler: DDLCompiler, **kw: object) -> str:
    # The name of the collation depends on the server and not on the URL: mysql:// may well reach a MariaDB.
    text: str = compiler.visit_create_table(element, **kw)  # type: ignore[no-untyped-call]
    is_mariadb = bool(getattr(compiler.dialect, "is_mariadb", False))
    return f"{text.rstrip()} ENGINE=InnoDB CHARSET=utf8mb4 COLLATE={table_collation(is_mariadb=is_mariadb)}"
