"""Which tables may be archived, and who refers to whom: all of it from the mapped models, nothing from a request."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from sqlalchemy import ForeignKeyConstraint, MetaData, Table
from sqlalchemy.orm import Mapper

from db.base import Base
from db.mixins import SoftDeleteMixin


class UnknownTable(ValueError):  # noqa: N818
    """A name that no mapped model with soft deletion has; the message is one line."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A mapped foreign key: columns of the child that hold columns of the parent."""

    child: Table
    parent: Table
    child_columns: tuple[str, ...]
    parent_columns: tuple[str, ...]
    owns: bool
    """Whether the child goes with its parent even if it knows no soft deletion: it says ``ON DELETE CASCADE``, or holds
    the columns that a subclass adds to the parent's row."""


@dataclass(frozen=True, eq=False)
class Catalog:
    """The mapped tables of one metadata."""

    soft_deleted: dict[str, Table]
    """Those of the models with ``SoftDeleteMixin``, by their full name; not that of a subclass whose mark is in the
    table of its parent."""
    references: tuple[Reference, ...]
    """Every foreign key between mapped tables."""

    @classmethod
    def of(cls, metadata: MetaData = Base.metadata) -> "Catalog":
        """Read the mapped models; those of plugins are among them once they are imported."""
        mapped = {mapper.local_table: mapper for mapper in Base.registry.mappers}
        models = {
            table: mapper for table, mapper in mapped.items() if isinstance(table, Table) and table.metadata is metadata
        }
        tables = sorted(models, key=lambda table: table.fullname)
        soft = {table.fullname: table for table in tables if _has_mark(models[table], table)}
        return cls(soft, tuple(_references(tables, models)))

    def find(self, name: str) -> Table:
        """Return the table with soft deletion of this name.

        Raises:
            UnknownTable: no mapped model has it. The name goes nowhere near SQL.
        """
        table = self.soft_deleted.get(name)
        if table is None:
            near = get_close_matches(name, self.soft_deleted, n=1)
            known = ", ".join(self.soft_deleted) or "there is none"
            advice = f"did you mean {near[0]}?" if near else f"those are {known}"
            raise UnknownTable(f"{name[:100]!r} is no table of a mapped model with soft deletion: {advice}")
        return table

    def is_soft_deleted(self, table: Table) -> bool:
        """Whether the table's rows are marked before they go."""
        return table.fullname in self.soft_deleted

    def references_to(self, table: Table) -> list[Reference]:
        """Return the foreign keys that point at a table."""
        return [reference for reference in self.references if reference.parent is table]

    def references_of(self, table: Table) -> list[Reference]:
        """Return the foreign keys of a table."""
        return [reference for reference in self.references if reference.child is table]

    def family_of(self, table: Table) -> list[Table]:
        """Return the table and all that may follow one of its rows, parents before their children."""
        family, new = [table], [table]
        while new:
            children = [reference.child for parent in new for reference in self.references_to(parent)]
            new = [child for child in dict.fromkeys(children) if child not in family]
            family += new
        return family

    def children_first(self, tables: Iterable[Table]) -> list[Table]:
        """Return the tables in the order of an archive run: what refers to others goes before them."""
        wanted, order = list(tables), list[Table]()
        for table in wanted:
            self._visit(table, wanted, order, on_the_way=())
        return order

    def _visit(self, table: Table, wanted: list[Table], order: list[Table], *, on_the_way: tuple[Table, ...]) -> None:
        if table in order or table in on_the_way:  # a circle is cut where it was entered
            return
        for reference in self.references_to(table):
            if reference.child in wanted:
                self._visit(reference.child, wanted, order, on_the_way=(*on_the_way, table))
        order.append(table)


def _has_mark(mapper: Mapper[Any], table: Table) -> bool:
    return issubclass(mapper.class_, SoftDeleteMixin) and "is_deleted" in table.c


def _references(tables: list[Table], models: dict[Table, Mapper[Any]]) -> Iterator[Reference]:
    for child in tables:
        constraints: list[Any] = sorted(child.foreign_key_constraints, key=lambda one: str(one.name))
        for constraint in constraints:
            if constraint.referred_table in tables:
                yield _reference(models[child], child, constraint)


def _reference(mapper: Mapper[Any], child: Table, constraint: ForeignKeyConstraint) -> Reference:
    child_columns = tuple(element.parent.name for element in constraint.elements)
    is_same_row = mapper.inherits is not None and mapper.inherits.local_table is constraint.referred_table
    return Reference(
        child=child,
        parent=constraint.referred_table,
        child_columns=child_columns,
        parent_columns=tuple(element.column.name for element in constraint.elements),
        owns=(constraint.ondelete or "").upper() == "CASCADE"
        or (is_same_row and set(child_columns) == set(child.primary_key.columns.keys())),
    )
