"""A row's card: the columns by which it is found, referred to, and in conflict with others."""

from sqlalchemy import Column, Index, Table, UniqueConstraint

from db.archives.catalog import Catalog
from db.archives.keys import key_columns


def unique_sets(table: Table) -> list[tuple[str, ...]]:
    """Return the columns of each unique constraint besides the primary key.

    Left out are unique indexes over expressions or a part of the rows: the database alone can tell of those.
    """
    constraints = [one for one in table.constraints if isinstance(one, UniqueConstraint)]
    found = [tuple(column.name for column in one.columns) for one in constraints]
    found += [
        tuple(column.name for column in index.columns) for index in table.indexes if index.unique and _is_plain(index)
    ]
    return sorted(dict.fromkeys(found))


def _is_plain(index: Index) -> bool:
    is_partial = any(name.endswith("_where") and value is not None for name, value in index.dialect_kwargs.items())
    return not is_partial and all(isinstance(one, Column) for one in index.expressions)


def card_names(catalog: Catalog, table: Table) -> list[str]:
    """Return the columns of a row's card."""
    wanted = {column.name for column in key_columns(table)}
    for reference in catalog.references_of(table):
        wanted.update(reference.child_columns)
    for reference in catalog.references_to(table):
        wanted.update(reference.parent_columns)
    for columns in unique_sets(table):
        wanted.update(columns)
    if catalog.is_soft_deleted(table):
        wanted.add("deleted_at")
    return [column.name for column in table.columns if column.name in wanted]
