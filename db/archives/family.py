"""Which rows go with which: a due row's children follow it, unless a living row stands among them.

A child follows its parent if it is soft-deleted itself, or if it knows no soft deletion and its foreign key says
``ON DELETE CASCADE``. Any other child is a living reference, and keeps its parent where it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Table, select
from sqlalchemy.ext.asyncio import AsyncSession

from db.archives.catalog import Catalog, Reference
from db.archives.keys import Key, key_columns, key_text
from db.archives.rows import among_keys

KEYS_A_QUERY = 1_000


@dataclass(frozen=True, slots=True)
class LivingReference:
    """Why a due row stays."""

    root: Key
    table: Table
    key: Key
    """The living row's."""

    def as_texts(self, root_table: Table) -> dict[str, str]:
        """Return it as a report names it."""
        return {
            "table": root_table.fullname,
            "key": key_text(self.root),
            "by_table": self.table.fullname,
            "by_key": key_text(self.key),
        }


@dataclass(frozen=True, slots=True)
class Generation:
    """Rows of one table that are equally far from the due rows they go with."""

    table: Table
    keys: list[Key]


@dataclass(slots=True)
class Family:
    """Due rows and all that goes with them; the furthest generation comes first, for it must be deleted first."""

    generations: list[Generation]
    kept: list[LivingReference]
    """One for each due row that stays."""


@dataclass(slots=True)
class _Member:
    """A row on its way out."""

    depth: int
    roots: set[Key]


@dataclass(slots=True)
class _Search:
    members: dict[tuple[str, Key], _Member] = field(default_factory=dict)
    tables: dict[str, Table] = field(default_factory=dict)
    living: dict[Key, LivingReference] = field(default_factory=dict)


async def find_family(
    session: AsyncSession, catalog: Catalog, root: Table, keys: Sequence[Key], *, lock: bool = True
) -> Family:
    """Return what goes with due rows, all of it locked.

    Whoever wants to add a child meanwhile waits for the lock on its parent, and is refused when that is gone.

    Args:
        session: a transaction that has the due rows locked.
        catalog: who refers to whom.
        root: the due rows' table.
        keys: the due rows.
        lock: False only looks, which a session that cannot write may do.
    """
    search = _Search(tables={root.fullname: root})
    for key in keys:
        search.members[root.fullname, key] = _Member(0, {key})
    frontier: list[tuple[Table, list[Key]]] = [(root, list(keys))]
    while frontier:
        table, parents = frontier.pop(0)
        for reference in catalog.references_to(table):
            found = await _children_of(session, catalog, reference, parents, lock=lock)
            new = _enter(search, reference, found)
            if new:
                frontier.append((reference.child, new))
    return _family(search)


@dataclass(frozen=True, slots=True)
class _Child:
    key: Key
    parent: Key
    follows: bool


async def _children_of(
    session: AsyncSession, catalog: Catalog, reference: Reference, parents: Sequence[Key], *, lock: bool
) -> list[_Child]:
    dialect = session.get_bind().dialect.name
    child, parent = reference.child, reference.parent.alias("referred")
    pairs = zip(reference.child_columns, reference.parent_columns, strict=True)
    joined = [child.c[ours] == parent.c[theirs] for ours, theirs in pairs]
    parent_key = [parent.c[column.name] for column in key_columns(reference.parent)]
    marks: list[ColumnElement[Any]] = [child.c.is_deleted] if catalog.is_soft_deleted(child) else []
    query = select(*key_columns(child), *parent_key, *marks).join_from(child, parent, *joined)
    children = list[_Child]()
    for start in range(0, len(parents), KEYS_A_QUERY):
        some = query.where(among_keys(parent_key, parents[start : start + KEYS_A_QUERY], dialect))
        if lock and dialect != "sqlite":
            # Waits for those that others have locked: the parent's DELETE would, too, and then take them along.
            some = some.with_for_update(of=child)
        children += [_child(row, reference, has_mark=bool(marks)) for row in await session.execute(some)]
    return children


def _child(row: Any, reference: Reference, *, has_mark: bool) -> _Child:
    width, values = len(key_columns(reference.child)), tuple(row)
    follows = bool(values[-1]) if has_mark else reference.owns
    rest = values[width:-1] if has_mark else values[width:]
    return _Child(values[:width], rest, follows)


def _enter(search: _Search, reference: Reference, found: Iterable[_Child]) -> list[Key]:
    """Enter children; returns those whose own children must be looked for (again)."""
    new: dict[Key, None] = {}
    name, parents = reference.child.fullname, reference.parent.fullname
    search.tables[name] = reference.child
    for child in found:
        parent = search.members[parents, child.parent]
        known = search.members.get((name, child.key))
        if not child.follows and known is None:
            for root in parent.roots:
                search.living.setdefault(root, LivingReference(root, reference.child, child.key))
            continue
        if known is None:
            search.members[name, child.key] = _Member(parent.depth + 1, set(parent.roots))
            new[child.key] = None
        elif _has_changed(known, parent, limit=len(search.members)):
            new[child.key] = None
    return list(new)


def _has_changed(known: _Member, parent: _Member, *, limit: int) -> bool:
    if known is parent:
        return False
    grows, sinks = not parent.roots <= known.roots, known.depth <= parent.depth < limit  # a circle of rows ends there
    known.roots |= parent.roots
    if sinks:
        known.depth = parent.depth + 1
    return grows or sinks


def _family(search: _Search) -> Family:
    grouped: dict[tuple[int, str], list[Key]] = {}
    for (name, key), member in search.members.items():
        if member.roots - search.living.keys():
            grouped.setdefault((-member.depth, name), []).append(key)
    ordered = [Generation(search.tables[name], grouped[depth, name]) for depth, name in sorted(grouped)]
    return Family(ordered, list(search.living.values()))
