"""Files that cannot be imported: one line that names the thing and the way out, and nothing half-done."""

import gzip
import os
import random
import string
from pathlib import Path

import pytest

from tests.cli.command import Ended, invoke
from tests.cli.tables import Tables
from tests.imports.files import write

NO_TITLE = (
    "no column is mapped onto title, which every task must have: the file has 'A-1', 'one';"
    " name one with --map title=COLUMN"
)


def assert_nothing_was_done(ended: Ended, tables: Tables, data_dir: Path) -> None:
    assert ended.code == 2
    assert tables.runs() == []
    assert not (data_dir / "spool").exists() or list((data_dir / "spool").iterdir()) == []


def test_a_missing_file(tables: Tables, data_dir: Path, tmp_path: Path) -> None:
    ended = invoke("import", tmp_path / "nothing.csv")
    assert ended.line == f"{tmp_path}/nothing.csv does not exist: check the path"
    assert_nothing_was_done(ended, tables, data_dir)


def test_a_directory(tables: Tables, data_dir: Path, tmp_path: Path) -> None:
    ended = invoke("import", tmp_path)
    assert ended.line == f"{tmp_path} is a directory: name a file"
    assert_nothing_was_done(ended, tables, data_dir)


def test_a_pipe_by_name(tables: Tables, data_dir: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ended = invoke("import", tmp_path / "pipe")
    assert ended.line == f"{tmp_path}/pipe is not a regular file: read it through standard input, with -"
    assert_nothing_was_done(ended, tables, data_dir)


@pytest.mark.parametrize("name", ["no\nsuch\nfile", "x" * 300, "\udcff.csv"], ids=["lines", "long", "no UTF-8"])
def test_odd_names(tables: Tables, data_dir: Path, tmp_path: Path, name: str) -> None:
    ended = invoke("import", f"{tmp_path}/{name}")
    assert ended.line
    assert_nothing_was_done(ended, tables, data_dir)


# What stands behind "source '...'" or, where a line begins otherwise, the whole line.
BAD_FILES = {
    b"": "is empty: it must hold records; check how it was written",
    b"\n\n\r\n": "has no header: a CSV file begins with the names of its columns, within its first 262,144 bytes;"
    " put them there",
    b"A-1,one\nA-2,two\n": NO_TITLE,
    b"title,\xff\n": "has the byte 0xff in its header, which is not valid utf-8: give the file's encoding with"
    " --encoding",
    b"title,title\na,b\n": "column 'title' stands 2 times in the header: a mapped column must stand there once; rename"
    " the others in the file",
    b"title,a\0b\n1,2\n": "has a NUL character in its header: a CSV file begins with the names of its columns; save it"
    " as UTF-8 text there",
    b"PK\3\4....": "is a ZIP archive or an Excel workbook: CSV and NDJSON are read, plain, gzip or zstd; convert it",
    b'[{"title": "x"}]': "is one JSON array: NDJSON has one object a line; convert it with: jq -c '.[]'",
    gzip.compress(b"", mtime=0): "is empty: it must hold records; check how it was written",
    b"\x1f\x8b\x08\0\0\0\0\0\0\3KL": "ends in the middle of its data after line 0: the gzip data is cut off; fetch it"
    " again and import it anew",
}


@pytest.mark.parametrize("piped", [False, True], ids=["file", "standard input"])
@pytest.mark.parametrize("content", BAD_FILES, ids=lambda content: repr(content)[2:-1][:20])
def test_a_file_that_is_no_table(tables: Tables, data_dir: Path, tmp_path: Path, content: bytes, piped: bool) -> None:
    path = write(tmp_path, content, "file")
    ended = invoke("import", "-", "--json", stdin=content) if piped else invoke("import", path, "--json")
    name, told = "standard input" if piped else path, BAD_FILES[content]
    assert ended.line in {told, f"source '{name}' {told}"}
    assert_nothing_was_done(ended, tables, data_dir)


def test_a_column_that_is_not_there(tables: Tables, data_dir: Path, tmp_path: Path) -> None:
    columns = [f"column {number}" for number in range(40)]
    path = write(tmp_path, ",".join(["summary", *columns]) + "\n")
    ended = invoke("import", path, "--map", "title=sumary")
    listed = ", ".join(f"'{name}'" for name in columns[:29])
    assert ended.line == (
        f"column 'sumary' is not in the file: its columns are 'summary', {listed} and 11 more; did you mean 'summary'?"
    )
    assert_nothing_was_done(ended, tables, data_dir)


def truncated_gz(folder: Path, rows: int) -> tuple[Path, bytes]:
    """Writes a .gz that is cut in its middle; returns it and the whole content. Text that packs badly, so that most
    rows come out before the damage."""
    letters = random.Random(5)  # noqa: S311 - test data
    text = "".join(f"K-{number},{''.join(letters.choices(string.ascii_letters, k=60))}\n" for number in range(rows))
    packed = gzip.compress(("external_key,title\n" + text).encode())
    return write(folder, packed[: len(packed) // 2], "tasks.csv.gz"), packed


def test_a_truncated_gz_keeps_the_rows_before_the_damage(tables: Tables, data_dir: Path, tmp_path: Path) -> None:
    rows = 5000
    path, whole = truncated_gz(tmp_path, rows)
    ended = invoke("import", path, "--batch-rows", "500", "--json")
    document = ended.document
    loaded = document["inserted"]
    assert (ended.code, document["state"], document["error"]["type"]) == (1, "failed", "truncated")
    assert 1000 < loaded < rows
    assert loaded == document["rows_read"] == len(tables.titles())
    assert ended.error.startswith(f"source '{path}' ends in the middle of its data after line {loaded + 1}: ")
    assert ended.error.endswith("; fetch it again and import it anew")
    assert list((data_dir / "spool").iterdir()) == []
    path.write_bytes(whole)
    mended = invoke("import", path, "--json").document
    assert [mended[key] for key in ("state", "inserted", "skipped")] == ["succeeded", rows - loaded, loaded]
    assert len(tables.titles()) == rows


def test_a_truncated_gz_leaves_nothing_of_an_atomic_import(tables: Tables, tmp_path: Path) -> None:
    path, _ = truncated_gz(tmp_path, 2000)
    ended = invoke("import", path, "--atomic", "--json")
    assert (ended.code, ended.document["error"]["type"]) == (1, "truncated")
    assert (tables.titles(), tables.users()) == ([], {})


ELSEWHERE = {
    "": "cannot be read: IMPORT_ROOTS is not set, so no folder is open to imports; set IMPORT_ROOTS to the folder of"
    " the file",
    "/nowhere:/else": "is outside the import roots (/nowhere, /else): only files below them are read; move the file"
    " there or add its folder to IMPORT_ROOTS",
}


@pytest.mark.parametrize("roots", ELSEWHERE)
def test_a_producer_that_names_a_file_elsewhere(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roots: str
) -> None:
    monkeypatch.setenv("IMPORT_ROOTS", roots)
    path = write(tmp_path, "title\none\n")
    ended = invoke("enqueue", "import_tasks", f"source={path}", "--wait", "--json")
    document = ended.document
    assert (ended.code, document["state"]) == (1, "failed")
    assert document["error"] == {"type": "outside_roots", "message": f"source '{path}' {ELSEWHERE[roots]}"}
    assert tables.titles() == []
