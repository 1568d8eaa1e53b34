"""Objects and lists of a JSON column that tell their row when they are changed, at whatever depth."""

from collections.abc import Iterable
from typing import Any, SupportsIndex
from weakref import ReferenceType, ref

from sqlalchemy.ext.mutable import Mutable


class TrackedJSON(Mutable):
    """What an attribute of type ``SmartJSON`` holds: a ``TrackedDict`` or a ``TrackedList``.

    Plain objects and lists that are put into it are copied: go on with what the attribute then holds.
    """

    _owner: ReferenceType["TrackedJSON"] | None = None

    @classmethod
    def coerce(cls, key: str, value: Any) -> "TrackedJSON | None":
        """Return the tracked copy of what an attribute is set to.

        Raises:
            ValueError: it is neither an object nor a list.
        """
        tracked = wrapped(value, None)
        if tracked is None or isinstance(tracked, TrackedJSON):
            return tracked
        raise ValueError(f"{key} is a {type(value).__name__} but takes a dict or a list: wrap the value in one")

    def changed(self) -> None:
        """Mark the row as changed."""
        super().changed()
        if self._owner is not None and (owner := self._owner()) is not None:
            owner.changed()


def wrapped(value: Any, owner: TrackedJSON | None) -> Any:
    """Return a tracked copy of an object or a list; anything else as it is."""
    if isinstance(value, dict):
        copy: TrackedJSON = TrackedDict(value)
    elif isinstance(value, list):
        copy = TrackedList(value)
    else:
        return value
    copy._owner = None if owner is None else ref(owner)  # noqa: SLF001 - of its own kind
    return copy


class TrackedDict(TrackedJSON, dict[Any, Any]):
    """An object of a JSON column."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        for key, value in dict(*args, **kwargs).items():
            dict.__setitem__(self, key, wrapped(value, self))

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key, wrapped(value, self))
        self.changed()

    def __delitem__(self, key: Any) -> None:
        super().__delitem__(key)
        self.changed()

    def __ior__(self, other: Any) -> "TrackedDict":  # type: ignore[misc]
        self.update(other)
        return self

    def clear(self) -> None:
        """Remove all."""
        super().clear()
        self.changed()

    def pop(self, *args: Any) -> Any:
        """Remove one and return it."""
        value = super().pop(*args)
        self.changed()
        return value

    def popitem(self) -> tuple[Any, Any]:
        """Remove the last and return it."""
        item = super().popitem()
        self.changed()
        return item

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return one, set to the default first if it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set many."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return type(self), (dict(self),)


class TrackedList(TrackedJSON, list[Any]):
    """A list of a JSON column."""

    def __init__(self, values: Iterable[Any] = ()) -> None:
        super().__init__()
        list.extend(self, [wrapped(value, self) for value in values])

    def __setitem__(self, index: Any, value: Any) -> None:
        new = [wrapped(one, self) for one in value] if isinstance(index, slice) else wrapped(value, self)
        super().__setitem__(index, new)
        self.changed()

    def __delitem__(self, index: SupportsIndex | slice) -> None:
        super().__delitem__(index)
        self.changed()

    def __iadd__(self, values: Iterable[Any]) -> "TrackedList":  # type: ignore[misc]
        self.extend(values)
        return self

    def __imul__(self, count: SupportsIndex) -> "TrackedList":
        self[:] = list(self) * count
        return self

    def append(self, value: Any) -> None:
        """Add one."""
        super().append(wrapped(value, self))
        self.changed()

    def extend(self, values: Iterable[Any]) -> None:
        """Add many."""
        super().extend([wrapped(value, self) for value in values])
        self.changed()

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """Add one before another."""
        super().insert(index, wrapped(value, self))
        self.changed()

    def remove(self, value: Any) -> None:
        """Remove the first that is equal."""
        super().remove(value)
        self.changed()

    def pop(self, index: SupportsIndex = -1) -> Any:
        """Remove one and return it."""
        value = super().pop(index)
        self.changed()
        return value

    def clear(self) -> None:
        """Remove all."""
        super().clear()
        self.changed()

    def sort(self, **kwargs: Any) -> None:
        """Sort in place."""
        super().sort(**kwargs)
        self.changed()

    def reverse(self) -> None:
        """Turn round in place."""
        super().reverse()
        self.changed()

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return type(self), (list(self),)
