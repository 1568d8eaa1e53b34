"""Rows that cannot be loaded: each is rejected under its code, and those around it are loaded."""

from pathlib import Path

import pytest

from tests.cli.command import invoke
from tests.cli.tables import Tables
from tests.imports.files import write

LONG = "x" * 300
HEADER = "external_key,title,status,completed_at"
# The row -> the code and the column under which it is rejected.
CSV_ROWS: dict[bytes, tuple[str, str | None]] = {
    f"K,{LONG},,".encode(): ("string_too_long", "title"),
    f"{LONG},title,,".encode(): ("string_too_long", "external_key"),
    b",title,,": ("string_too_short", "external_key"),
    b"K,,,": ("string_too_short", "title"),
    b"K,title,DONE,": ("enum", "status"),
    b"K,title,pending,": ("enum", "status"),
    b"K,title, PENDING,": ("enum", "status"),
    b"K,title,,2026-01-31T08:30:00": ("timezone_aware", "completed_at"),
    b"K,title,,2026-01-31": ("timezone_aware", "completed_at"),
    b"K,title,,2024": ("datetime_from_date_parsing", "completed_at"),
    b"K,title,,1700000000": ("datetime_from_date_parsing", "completed_at"),
    b"K,title,,2026-02-30T00:00:00Z": ("datetime_from_date_parsing", "completed_at"),
    b"K,title,,tomorrow": ("datetime_from_date_parsing", "completed_at"),
    b"K,title,, 2026-01-31T08:30:00Z": ("datetime_from_date_parsing", "completed_at"),
    b"K,title,,0001-01-01T00:00:00Z": ("datetime_out_of_range", "completed_at"),
    b"K,title,,0001-01-01T00:00:00+14:00": ("datetime_out_of_range", "completed_at"),
    b"K,title,,9999-12-31T23:59:59-14:00": ("datetime_out_of_range", "completed_at"),
    b"K,ti\xfftle,,": ("invalid_encoding", "title"),
    b"K,ti\0tle,,": ("nul_character", "title"),
    b"K,title": ("too_few_fields", None),
    b"K,title,,,": ("too_many_fields", None),
    b'K,"title" x,,': ("malformed_csv", None),
}
JSON_ROWS = {
    '{"external_key": "K"}': ("missing", "title"),
    '{"title": null}': ("missing", "title"),
    '{"title": 5}': ("string_type", "title"),
    '{"title": "t", "completed_at": 1700000000}': ("datetime_from_date_parsing", "completed_at"),
    '{"title": "t", "status": 1}': ("enum", "status"),
    '{"title": "t", "external_key": 7}': ("string_type", "external_key"),
    '{"title": "a\\u0000b"}': ("nul_character", "title"),
    '{"title": "half \\ud83d of it"}': ("malformed_json", "title"),
    '{"title": "t"': ("malformed_json", None),
    '["title"]': ("not_an_object", None),
    '{"title": "t", "title": "u"}': ("duplicate_json_key", "title"),
    '{"title": "t", "number": NaN}': ("malformed_json", None),
}


def test_bad_rows_of_a_csv_file_on_every_engine(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good rows stand between the bad ones, in one batch with them; the engine must not meet a row that it refuses."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert invoke("db", "upgrade").code == 0
    good = b"".join(b"G-%d,good,CANCELLED,1000-01-01T00:00:00Z\n%b\n" % pair for pair in enumerate(CSV_ROWS))
    path = write(tmp_path, HEADER.encode() + b"\n" + good)
    document = invoke("import", path, "--json").document
    assert [document[key] for key in ("inserted", "rejected")] == [len(CSV_ROWS), len(CSV_ROWS)]
    found = [(column, code) for _, column, code in Tables(database_url).rejects()]
    assert found == [(column, code) for code, column in CSV_ROWS.values()]


def test_bad_rows_of_an_ndjson_file(tables: Tables, tmp_path: Path) -> None:
    path = write(tmp_path, "".join(f'{row}\n{{"title": "good"}}\n' for row in JSON_ROWS), "tasks.ndjson")
    document = invoke("import", path, "--json").document
    assert [document[key] for key in ("inserted", "rejected")] == [len(JSON_ROWS), len(JSON_ROWS)]
    assert [(column, code) for _, column, code in tables.rejects()] == [
        (column, code) for code, column in JSON_ROWS.values()
    ]


def test_the_limits_of_what_is_good(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert invoke("db", "upgrade").code == 0
    rows = {
        "\U0001f418" * 255: ("\U0001f525" * 255, "1000-01-01T00:00:00Z"),
        "  ": (" K ", "9999-12-31T23:59:59.999999Z"),
        "\u200b": ("k", "2026-01-31 08:30+0130"),
        "NULL": ("K", "2024-02-29T23:59:59,5-12:00"),
        "=1+1": ("K\u0301", ""),
    }
    lines = [f'"{key}","{title}",,"{moment}"' for title, (key, moment) in rows.items()]
    document = invoke("import", write(tmp_path, "\n".join([HEADER, *lines])), "--json").document
    assert [document[key] for key in ("inserted", "rejected")] == [len(rows), 0]
    tables = Tables(database_url)
    assert {task.title: task.external_key for task in tables.tasks()} == {
        title: key for title, (key, _) in rows.items()
    }
    moments = {task.title: task.completed_at and task.completed_at.isoformat() for task in tables.tasks()}
    assert [moments[title] for title in rows] == [
        "1000-01-01T00:00:00+00:00",
        "9999-12-31T23:59:59.999999+00:00",
        "2026-01-31T07:00:00+00:00",
        "2024-03-01T11:59:59.500000+00:00",
        None,
    ]


def test_metadata_of_any_shape(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert invoke("db", "upgrade").code == 0
    deepest, too_deep = ("[" * depth + "]" * depth for depth in (30, 31))
    values = [
        '{"a": [1, 2.5, null, true], "b": {"c": "€😀"}}',
        "123456789012345678901234567890",
        '""',
        "null",
        deepest,
        too_deep,
    ]
    lines = [f'{{"title": "{number}", "m": {value}}}' for number, value in enumerate(values)]
    path = write(tmp_path, "\n".join(lines), "tasks.ndjson")
    document = invoke("import", path, "--map", "title=title", "--map", "metadata.m=m", "--json").document
    tables = Tables(database_url)
    assert [document[key] for key in ("state", "inserted")] == ["succeeded", 5]
    assert tables.rejects() == [(6, "metadata", "too_deep")]
    assert [task.metadata_json for task in tables.tasks()][:4] == [
        {"m": {"a": [1, 2.5, None, True], "b": {"c": "€😀"}}},
        {"m": 123456789012345678901234567890},
        {"m": ""},
        {"m": None},
    ]


def test_a_column_with_a_long_name(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    assert invoke("db", "upgrade").code == 0
    name = "n" * 400
    path = write(tmp_path, f"{name}\n{LONG}\ngood\n")
    assert invoke("import", path, "--map", f"title={name}", "--json").document["rejected"] == 1
    assert Tables(database_url).rejects() == [(2, name[:255], "string_too_long")]
