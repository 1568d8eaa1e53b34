"""Which rows go with which: a due row's children follow it, unless a row that stays stands among them.

A child follows its parent if it is soft-deleted itself, or if it knows no soft deletion and its foreign key says
``ON DELETE CASCADE``. Any other child that does not leave with another parent is a living reference, and keeps its
parent where it is. Rows that refer to each other in a circle stay as well: none of them can be deleted before the rest.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """Of the row that refers to it, or to one that would have gone with it."""
    in_circle: bool = False
    """It would leave as well, but they refer to each other."""

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


_Row = tuple[str, Key]
"""A table's full name, and a key of it."""


@dataclass(slots=True)
class _Search:
    tables: dict[str, Table]
    members: dict[_Row, set[Key]]
    """Rows on their way out, each with the due rows that it goes with."""
    followers: dict[_Row, list[_Row]] = field(default_factory=dict)
    """Of a row those that go with it."""
    children: dict[_Row, list[_Row]] = field(default_factory=dict)
    """Of a row all that refer to it, those that stay included."""

    def parents(self) -> dict[_Row, list[_Row]]:
        """Return what each row refers to, among those on their way out."""
        found: dict[_Row, list[_Row]] = {}
        for parent, children in self.children.items():
            for child in children:
                found.setdefault(child, []).append(parent)
        return found


class _Leaving:
    """Which rows leave, while more and more due rows turn out to stay."""

    def __init__(self, search: _Search) -> None:
        self.kept: dict[Key, LivingReference] = {}
        self._search = search
        self._of_root: dict[Key, list[_Row]] = {}
        self._roots_left = {row: len(roots) for row, roots in search.members.items()}
        for row, roots in search.members.items():
            for root in roots:
                self._of_root.setdefault(root, []).append(row)

    def has(self, row: _Row) -> bool:
        """Whether a due row takes it along."""
        return self._roots_left.get(row, 0) > 0

    def keep(self, row: _Row, child: _Row, *, in_circle: bool = False) -> list[_Row]:
        """Keep the due rows that a row goes with, because of a child of it; returns the rows that stay with them."""
        staying, table = list[_Row](), self._search.tables[child[0]]
        for root in self._search.members[row] - self.kept.keys():
            self.kept[root] = LivingReference(root, table, child[1], in_circle)
            for one in self._of_root[root]:
                self._roots_left[one] -= 1
                if not self._roots_left[one]:
                    staying.append(one)
        return staying


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
    search = _Search({root.fullname: root}, {(root.fullname, key): {key} for key in keys})
    frontier: list[tuple[Table, list[Key]]] = [(root, list(keys))]
    while frontier:
        table, parents = frontier.pop(0)
        for reference in catalog.references_to(table):
            found = await _children_of(session, catalog, reference, parents, lock=lock)
            if new := _enter(search, reference, found):
                frontier.append((reference.child, new))
    parents_of = search.parents()
    order = list(_children_first(search, parents_of))
    _spread_roots(search, order)
    leaving = _what_leaves(search, parents_of, order)
    return Family(_generations(search, parents_of, leaving, order), list(leaving.kept.values()))


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
    """Enter children; returns those that are new, whose own children must be looked for."""
    new: list[Key] = []
    name, parents = reference.child.fullname, reference.parent.fullname
    search.tables[name] = reference.child
    for child in found:
        row, parent = (name, child.key), (parents, child.parent)
        if row == parent:
            continue
        search.children.setdefault(parent, []).append(row)
        if child.follows:
            search.followers.setdefault(parent, []).append(row)
            if row not in search.members:
                search.members[row] = set()
                new.append(child.key)
    return new


def _children_first(search: _Search, parents_of: Mapping[_Row, Sequence[_Row]]) -> Iterator[_Row]:
    """Yield the rows, each behind all that refer to it; not those of a circle, nor what these refer to.

    Kahn's topological sorting (Communications of the ACM 5, 1962, 558-562).
    """
    waits_for = dict.fromkeys(search.members, 0)
    for child, parents in parents_of.items():
        for parent in parents if child in search.members else ():
            waits_for[parent] += 1
    free = [row for row, count in waits_for.items() if count == 0]
    while free:
        yield (row := free.pop())
        for parent in parents_of.get(row, ()):
            waits_for[parent] -= 1
            if waits_for[parent] == 0:
                free.append(parent)


def _spread_roots(search: _Search, order: Sequence[_Row]) -> None:
    """Give each row the due rows that those have with which it goes."""
    members, ordered = search.members, set(order)
    waiting = deque(row for row in members if row not in ordered)
    while waiting:  # around circles until nothing is new
        row = waiting.popleft()
        for follower in search.followers.get(row, ()):
            if follower not in ordered and not members[row] <= members[follower]:
                members[follower] |= members[row]
                waiting.append(follower)
    for row in (*(row for row in members if row not in ordered), *reversed(order)):  # what it goes with comes first
        for follower in search.followers.get(row, ()):
            members[follower] |= members[row]


def _what_leaves(search: _Search, parents_of: Mapping[_Row, Sequence[_Row]], order: Sequence[_Row]) -> _Leaving:
    leaving, ordered = _Leaving(search), set(order)
    for row in search.members:
        if row not in ordered:
            child = next(one for one in search.children[row] if one in search.members and one not in ordered)
            leaving.keep(row, child, in_circle=True)
    waiting = deque(row for row in parents_of if not leaving.has(row))
    while waiting:  # a row that stays keeps what it refers to
        child = waiting.popleft()
        for parent in parents_of.get(child, ()):
            if leaving.has(parent):
                waiting += leaving.keep(parent, child)
    return leaving


def _generations(
    search: _Search, parents_of: Mapping[_Row, Sequence[_Row]], leaving: _Leaving, order: Sequence[_Row]
) -> list[Generation]:
    depths: dict[_Row, int] = {}
    for row in reversed(order):
        depths[row] = max((depths[parent] + 1 for parent in parents_of.get(row, ()) if parent in depths), default=0)
    grouped: dict[tuple[int, str], list[Key]] = {}
    for (name, key), depth in depths.items():
        if leaving.has((name, key)):
            grouped.setdefault((-depth, name), []).append(key)
    return [Generation(search.tables[name], grouped[depth, name]) for depth, name in sorted(grouped)]
