"""Models as JSON values, relationships by choice, and back from them, with errors that name field and value."""

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from sqlalchemy import Column, inspect
from sqlalchemy.orm import RelationshipProperty

from db.base import Base
from db.field_values import read_value
from db.fields import FieldError, column_fields, json_columns, unknown_field

ModelT = TypeVar("ModelT", bound=Base)


class ModelSerializer(Generic[ModelT]):
    """What one model looks like in JSON.

    Args:
        model: the model.
        relationships: those to follow, each by its path: ``"tasks"``, ``"tasks.user"``. Only what is loaded is shown,
            so load them with the query (``selectinload``): a serializer never queries.
        exclude: fields to leave out, by path as well: ``"email"``, ``"tasks.description"``.
        include: private fields (such as a password's hash) that are wanted all the same.
        depth: how many relationships deep at most.

    Raises:
        FieldError: there is no such relationship or field.
    """

    def __init__(
        self,
        model: type[ModelT],
        *,
        relationships: Iterable[str] = (),
        exclude: Iterable[str] = (),
        include: Iterable[str] = (),
        depth: int = 3,
    ) -> None:
        self.model = model
        self._relationships, self._exclude, self._include = set(relationships), set(exclude), set(include)
        self._depth = depth
        for path in sorted(self._relationships):
            _follow(model, path, "no relationship", ends_in_column=False)
        for path in sorted(self._exclude | self._include):
            _follow(model, path, "no field", ends_in_column=True)

    def to_dict(self, item: ModelT) -> dict[str, Any]:
        """Return the object's loaded columns and chosen relationships as JSON values.

        An object that stands above itself (a task's user's tasks) is shown by its primary key only.
        """
        return self._show(item, "", [])

    def bulk_to_dict(self, items: Iterable[ModelT]) -> list[dict[str, Any]]:
        """Return ``to_dict`` of each."""
        return [self.to_dict(item) for item in items]

    def from_dict(self, values: Mapping[str, Any]) -> ModelT:
        """Make an object of JSON values; it is not added to a session.

        Takes ISO 8601 for times (those of the type ``UtcDateTime`` need an offset), text for UUIDs and decimals, an
        enum's value or name. Values that are of the column's type already are taken as they are.

        Raises:
            FieldError: an unknown or private field, or a value that its column cannot take.
        """
        return self.model(**self.read_values(values))

    def read_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values as ``from_dict`` reads them, for ``update_from_dict``.

        Raises:
            FieldError: as ``from_dict``.
        """
        fields, read = column_fields(self.model), {}
        for name, value in values.items():
            if name not in fields:
                raise unknown_field(self.model, name, value, fields)
            column = fields[name].columns[0]
            assert isinstance(column, Column)  # noqa: S101 - a mapped table's
            if column.info.get("private", False) and name not in self._include:
                raise FieldError(self.model.__name__, name, "...", "is private: leave it out")
            try:
                read[name] = read_value(column, value)
            except ValueError as error:
                raise FieldError(self.model.__name__, name, value, str(error)) from None
        return read

    def _show(self, item: Base, path: str, above: list[Base]) -> dict[str, Any]:
        here = _below(self._exclude, path)
        shown = json_columns(item, include=_below(self._include, path), exclude=here)
        if len(above) >= self._depth:
            return shown
        loaded = inspect(item).dict
        for name in sorted(_below(self._relationships, path) - here):
            if name in loaded:
                shown[name] = self._show_related(loaded[name], f"{path}{name}.", [*above, item])
        return shown

    def _show_related(self, related: Any, path: str, above: list[Base]) -> Any:
        if related is None:
            return None
        if isinstance(related, Base):
            return _key(related) if any(related is one for one in above) else self._show(related, path, above)
        if isinstance(related, Mapping):
            return {str(key): self._show_related(one, path, above) for key, one in related.items()}
        return [self._show_related(one, path, above) for one in related]


def _below(paths: set[str], prefix: str) -> set[str]:
    """The names that stand directly under a path: of ``tasks.user`` under ``tasks.`` it is ``user``."""
    return {path[len(prefix) :] for path in paths if path.startswith(prefix) and "." not in path[len(prefix) :]}


def _key(item: Base) -> dict[str, Any]:
    mapper = inspect(type(item))
    names = {mapper.get_property_by_column(column).key for column in mapper.primary_key}
    return json_columns(item, exclude=column_fields(type(item)).keys() - names)


def _follow(model: type[Base], path: str, what: str, *, ends_in_column: bool) -> None:
    """Check that a path exists."""
    *before, last = path.split(".")
    current: type[Any] = model
    for name in before if ends_in_column else [*before, last]:
        relationships = inspect(current).relationships
        if name not in relationships:
            raise FieldError(model.__name__, path, path, f"is {what}: {current.__name__} has {_names(relationships)}")
        found: RelationshipProperty[Any] = relationships[name]
        current = found.mapper.class_
    if ends_in_column and last not in inspect(current).attrs:
        raise FieldError(
            model.__name__, path, path, f"is {what}: {current.__name__} has {_names(current.__mapper__.attrs)}"
        )


def _names(attributes: Any) -> str:
    return ", ".join(sorted(attributes.keys())) or "none"
