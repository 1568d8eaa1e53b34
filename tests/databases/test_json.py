"""`SmartJSON`: what comes back, what is refused, what is noticed, and what queries find, the same on every engine."""

import asyncio
import copy
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import ColumnElement, select, text
from sqlalchemy.exc import DBAPIError, StatementError

from db.connection import DatabaseManager, close_database, get_async_session, initialize_database
from db.json_paths import json_boolean, json_float, json_has_item, json_integer, json_text, json_type
from db.json_text import UnfitJSONError, to_json_text
from db.models import Task
from db.settings import DatabaseSettings
from tests.databases.conftest import empty_tables
from tests.databases.test_types import make_owner, stored

ANY_TEXT = st.text() | st.sampled_from(
    ["\x00", "\ud800", "a\udfffb", "\\u0000", "\U0001f600", "'\"\\%s{}:x", " \t\r\n"]
)
NUMBERS = (
    st.integers() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from([1e23, 2.0**53, 1e308, 5e-324, -0.0])
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | ANY_TEXT | st.just(b"x"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT | st.integers(0, 3), inner, max_size=4),
    max_leaves=10,
)
PLAIN_KEYS = st.text(
    st.characters(exclude_characters='"\\', exclude_categories=["Cs", "Cc"]), min_size=1, max_size=5
).filter(lambda key: not key.startswith("-"))
ODD_KEYS = ["a.b", "$", "*", "[0]", "0", "x y", "\u00e9", "\U0001f600", "'", "%s", ":p", "?", "{c}", "last", "a-"]
KEYS = PLAIN_KEYS | st.sampled_from(ODD_KEYS)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = (
    PLAIN
    | st.sampled_from([1e-05, 1e15, 1e16, 2.0, -0.0, 1e300])
    | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=5)
)


def is_refused(value: Any) -> bool:
    try:
        to_json_text(value)
    except UnfitJSONError:
        return True
    return False


def same(one: Any, other: Any) -> bool:
    """Equal, types of numbers included."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and bool(one == other)


@pytest.fixture
def runner(settings: DatabaseSettings) -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        made.run(empty_tables(made.run(initialize_database(settings, patience_s=10))))
        yield made
        made.run(close_database())


def test_a_value_comes_back_exactly_or_is_refused_before_it_is_sent(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())

    @given(st.lists(st.dictionaries(ANY_TEXT, ANY_JSON, max_size=4), min_size=1, max_size=8))
    @hypothesis_settings(max_examples=60, deadline=None)
    def check(documents: list[dict[str, Any]]) -> None:
        good = [one for one in documents if not is_refused(one)]
        back = runner.run(stored(owner, [{"metadata_json": one} for one in good], Task.metadata_json)) if good else []
        assert same(back, good)
        for bad in (one for one in documents if is_refused(one)):
            with pytest.raises(StatementError) as caught:
                runner.run(stored(owner, [{"metadata_json": bad}], Task.metadata_json))
            assert isinstance(caught.value.orig, UnfitJSONError)

    check()


async def test_a_large_document_comes_back(manager: DatabaseManager) -> None:
    large = {"texts": ["\u00e4\U0001f600\r\n" * 50 for _ in range(1500)], "numbers": list(range(60_000))}
    assert len(json.dumps(large, ensure_ascii=False).encode()) > 1024 * 1024
    assert await stored(await make_owner(), [{"metadata_json": large}], Task.metadata_json) == [large]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"a": ["x", "a\x00b"]}, "$.a[1] holds a NUL character"),
        ({"a": {"b": "\ud800"}}, "$.a.b holds half a surrogate pair (\\ud800)"),
        ({"\udfff": 1}, "$.\\udfff holds half a surrogate pair"),
        ({"a": float("nan")}, "$.a is nan, which JSON does not have: store None or text"),
        ({"a": [float("-inf")]}, "$.a[0] is -inf"),
        ({1: 2}, "$.1 has a int for its key, but JSON's keys are text: write '1'"),
        ({"a": (1,)}, "$.a is a tuple, which JSON does not have: convert it to text or a list"),
        ({"a": UUID(int=1)}, "$.a is a UUID"),
        ("text", "a str is no value of a JSON column: pass a dict or a list"),
        (3, "a int is no value of a JSON column"),
    ],
)
async def test_what_is_refused_is_named(manager: DatabaseManager, value: Any, message: str) -> None:
    with pytest.raises(StatementError) as caught:
        await stored(await make_owner(), [{"metadata_json": value}], Task.metadata_json)
    assert message in str(caught.value)


async def test_text_that_is_no_json_is_refused_by_the_engine(manager: DatabaseManager) -> None:
    await stored(await make_owner(), [{}], Task.id)
    for column in ("metadata_json", "tags"):
        with pytest.raises(DBAPIError, match=r"(?i)json"):
            async with get_async_session() as session:
                await session.execute(text(f"UPDATE tasks SET {column} = '{{no json'"))


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda d: d.update(new=1),
    lambda d: d.pop("a"),
    lambda d: d.popitem(),
    lambda d: d.clear(),
    lambda d: d.setdefault("new", []).append(1),
    lambda d: d.__ior__({"new": {"x": []}}),
    lambda d: d.__delitem__("a"),
    lambda d: d["a"].update(b=2),
    lambda d: d["a"]["list"].append({"x": 1}),
    lambda d: d["a"]["list"][0].update(deep=True),
    lambda d: d["a"]["list"][0]["deepest"].insert(0, "x"),
    lambda d: d["a"]["list"].reverse(),
    lambda d: d["numbers"].sort(),
    lambda d: d["numbers"].extend([7, 8]),
    lambda d: d["numbers"].remove(3),
    lambda d: d["numbers"].pop(),
    lambda d: d["numbers"].clear(),
    lambda d: d["numbers"].__iadd__([9]),
    lambda d: d["numbers"].__imul__(2),
    lambda d: d["numbers"].__setitem__(slice(0, 2), [[5]]),
    lambda d: d["numbers"].__delitem__(0),
]
DOCUMENT = {"a": {"list": [{"deepest": [1]}, 2]}, "numbers": [3, 1, 2]}


async def test_changes_at_any_depth_are_noticed(manager: DatabaseManager) -> None:
    owner = await make_owner()
    async with get_async_session() as session:
        session.add_all([Task(title=str(n), user_id=owner, metadata_json=DOCUMENT) for n in range(len(CHANGES))])
    wanted = []
    for number, change in enumerate(CHANGES):
        plain = copy.deepcopy(DOCUMENT)
        change(plain)
        wanted.append(plain)
        async with get_async_session() as session:
            task = (await session.execute(select(Task).where(Task.title == str(number)))).scalar_one()
            assert task.metadata_json is not None
            change(task.metadata_json)
            assert task in session.dirty, number
            assert task.metadata_json == plain
    async with get_async_session(read_only=True) as session:
        tasks = (await session.execute(select(Task))).scalars()
        assert [task.metadata_json for task in sorted(tasks, key=lambda task: int(task.title))] == wanted


async def test_what_is_assigned_pickled_or_copied_is_tracked(manager: DatabaseManager) -> None:
    task = Task(title="t", user_id=await make_owner(), tags=["x"])
    for one in (pickle.loads(pickle.dumps(task.tags)), copy.deepcopy(task.tags)):  # noqa: S301 - our own
        assert (one, type(one)) == (["x"], type(task.tags))
    async with get_async_session() as session:
        session.add(task)
        await session.flush()
        task.metadata_json = {"a": []}
        await session.flush()
        task.metadata_json["a"].append(1)
        assert task in session.dirty
        await session.flush()
        task.metadata_json = None
    assert task.metadata_json is None
    with pytest.raises(ValueError, match="tags is a str but takes a dict or a list"):
        task.tags = "x"  # type: ignore[assignment]


async def ask(expression: ColumnElement[Any]) -> Any:
    async with get_async_session(read_only=True) as session:
        return (await session.execute(select(expression))).scalar_one()


def test_paths_find_the_same_everywhere(runner: asyncio.Runner) -> None:
    owner = runner.run(make_owner())
    wide = 2**63

    async def look(key: str, value: Any) -> list[Any]:
        (id_,) = await stored(owner, [{"metadata_json": {key: [value]}}], Task.id)
        column, place = Task.metadata_json, (key, 0)
        functions = (json_text, json_integer, json_float, json_boolean, json_type)
        queries = [one(column, *place) for one in functions]
        async with get_async_session(read_only=True) as session:
            return list((await session.execute(select(*queries).where(Task.id == id_))).one())

    @given(KEYS, SCALARS)
    @hypothesis_settings(max_examples=80, deadline=None)
    def check(key: str, value: Any) -> None:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = is_number and -wide <= value < wide and int(value) == value
        kind = {type(None): "null", bool: "boolean", str: "string"}.get(type(value), "number")
        assert runner.run(look(key, value)) == [
            value if isinstance(value, str) else None,
            int(value) if whole else None,
            pytest.approx(float(value), rel=1e-15) if is_number else None,
            value if isinstance(value, bool) else None,
            kind,
        ]

    check()


async def test_paths_to_nothing_and_of_other_shapes(manager: DatabaseManager) -> None:
    document = {"0": "zero", "list": ["a", {"b": 1}], "object": {"k": "v"}, "wide": 2**70, "null": None}
    await stored(await make_owner(), [{"metadata_json": document, "tags": ["urgent", '"\\', "\u00e9", "x "]}], Task.id)
    data, tags = Task.metadata_json, Task.tags
    assert await ask(json_text(data, "0")) == "zero"
    assert await ask(json_integer(data, "list", 1, "b")) == 1
    assert await ask(json_type(data)) == "object"
    assert [await ask(json_type(data, name)) for name in ("list", "object", "null", "none")] == [
        "array",
        "object",
        "null",
        None,
    ]
    nothing: list[Any] = [
        json_text(data, 0),  # an object is no list
        json_text(data, "list", "0"),  # nor a list an object
        json_text(data, "list", "b"),
        json_integer(data, "list", 2),
        json_text(data, "object", "k", "x"),
        json_integer(data, "wide"),  # more than 64 bits
        json_text(data, "object"),
        json_boolean(data, "list"),
    ]
    assert [await ask(one) for one in nothing] == [None] * len(nothing)
    for item, there in (
        ("urgent", True),
        ('"\\', True),
        ("\u00e9", True),
        ("x", False),
        ("x ", True),
        ("URGENT", False),
    ):
        assert await ask(json_has_item(tags, item)) is there, item
    assert await ask(json_has_item(data, "a", "list")) is True
    assert await ask(json_has_item(data, "v", "object")) is False
    assert await ask(json_has_item(data, "zero", "0")) is False


async def test_conditions_and_indexed_columns(manager: DatabaseManager) -> None:
    owner = await make_owner()
    documents: list[Any] = [{"team": "db", "n": 3, "ok": True}, {"team": "db ", "n": "3"}, {"team": "DB"}, None]
    rows = [{"title": str(n), "metadata_json": one, "tags": []} for n, one in enumerate(documents)]
    await stored(owner, [{**rows[0], "tags": ["x"]}, *rows[1:]], Task.id)
    data: Any = Task.metadata_json
    conditions = {
        "0": [data["team"].as_string() == "db", json_text(data, "team") == "db", json_integer(data, "n") == 3],
        "1": [data["team"].as_string() == "db ", data["n"].as_string() == "3", data["team"].as_string().like("% ")],
        "2": [data[("team",)].as_string() == "DB"],
        "3": [data.is_(None)],
    }
    conditions["0"] += [json_type(data, "n") == "number", json_has_item(Task.tags, "x")]
    conditions["1"] += [json_type(data, "n").in_(["string", "object"])]
    conditions["0"] += [data["n"].as_integer() > 2, data["n"].as_float() < 3.5, data["ok"].as_boolean().is_(True)]
    async with get_async_session(read_only=True) as session:
        for title, alternatives in conditions.items():
            for number, condition in enumerate(alternatives):
                found = (await session.execute(select(Task.title).where(condition))).scalars().all()
                assert found == [title], (title, number)
        shown = await session.execute(select(data["team"]).where(Task.title == "0"))
        assert shown.scalar_one() == "db"


@pytest.mark.parametrize("path", [("",), ('a"b',), ("a\\b",), ("a\n",), ("-a",), (-1,), (True,), ("\ud800",)])
def test_paths_that_engines_read_differently_are_refused(path: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"the path's|surrogate"):
        json_text(Task.metadata_json, *path)
