"""How MySQL and MariaDB compare text, told for every table that is made."""

from sqlalchemy.ext.compiler import compiles
from sqlalchemy.schema import CreateTable
from sqlalchemy.sql.compiler import DDLCompiler


def table_collation(*, is_mariadb: bool) -> str:
    """Return the collation of every table: it compares bytes and does not take 'x' and 'x ' for one key."""
    return "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"


@compiles(CreateTable, "mysql", "mariadb")
def _create_table_with_collation(element: CreateTable, compiler: DDLCompiler, **kw: object) -> str:
    # The name of the collation depends on the server and not on the URL: mysql:// may well reach a MariaDB.
    text: str = compiler.visit_create_table(element, **kw)  # type: ignore[no-untyped-call]
    is_mariadb = bool(getattr(compiler.dialect, "is_mariadb", False))
    return f"{text.rstrip()} ENGINE=InnoDB CHARSET=utf8mb4 COLLATE={table_collation(is_mariadb=is_mariadb)}"
