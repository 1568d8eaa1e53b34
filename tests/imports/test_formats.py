"""The forms that a file may have, and standard input."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.cli.command import invoke
from tests.cli.tables import Tables
from tests.imports.files import write

TITLES = ["  edges\t", 'say "x"', "two\nlines", "naïve €"]
CSV = 'title,n\n"  edges\t",1\n"say ""x""",2\n"two\nlines",3\nnaïve €,4\n'
NDJSON = '{"title":"  edges\\t"}\n{"title":"say \\"x\\""}\n{"title":"two\\nlines"}\n{"title":"na\\u00efve €"}\n'
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("text", [CSV, NDJSON], ids=["csv", "ndjson"])
def test_packed_files_and_standard_input(
    tables: Tables, data_dir: Path, tmp_path: Path, text: str, packing: str
) -> None:
    data = PACKED[packing](text.encode())
    path = write(tmp_path, data, ("tasks.csv" if text is CSV else "tasks.ndjson") + packing)
    from_file = invoke("import", path, "--json")
    assert from_file.document["inserted"] == 4
    piped = invoke("import", "-", "--json", stdin=data)
    assert piped.document["inserted"] == 4
    assert tables.titles() == sorted(TITLES * 2)
    assert list((data_dir / "spool").iterdir()) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (CSV.replace(",", ";").encode(), ["--delimiter", ";"]),
        (CSV.replace(",", "\t").encode(), ["--delimiter", "\\t"]),
        (CSV.replace(",", ";").encode(), []),
        (CSV.encode("cp1252"), ["--encoding", "cp1252"]),
        (CSV.encode("utf-16"), []),
        (CSV.encode("utf-8-sig"), []),
        (CSV.replace("\n", "\r\n").encode(), []),
        (CSV.encode(), ["--format", "csv", "--encoding", "UTF-8"]),
    ],
    ids=[
        "semicolons",
        "tabs",
        "semicolons, found",
        "cp1252",
        "UTF-16, found",
        "UTF-8 with a mark",
        "CRLF",
        "all given",
    ],
)
def test_delimiters_and_encodings(tables: Tables, tmp_path: Path, data: bytes, words: list[str]) -> None:
    ended = invoke("import", write(tmp_path, data, "no-telling-name"), *words, "--json")
    assert [ended.document[key] for key in ("inserted", "rejected")] == [4, 0]
    titles = [title.replace("\n", "\r\n") for title in TITLES] if b"\r\n" in data else TITLES
    assert tables.titles() == sorted(titles)


def test_latin_1(tables: Tables, tmp_path: Path) -> None:
    path = write(tmp_path, "title\nGrüße\n".encode("latin-1"))
    assert invoke("import", path, "--encoding", "latin-1").code == 0
    assert tables.titles() == ["Grüße"]


def test_a_file_under_an_import_root_is_read_where_it_lies(
    tables: Tables, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, CSV)
    monkeypatch.setenv("IMPORT_ROOTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert invoke("import", path.name, "--json").document["inserted"] == 4
    assert [run.request["source"] for run in tables.runs()] == [str(path)]
    assert path.exists()
    assert not (data_dir / "spool").exists()


def test_the_user_may_name_a_link(tables: Tables, tmp_path: Path) -> None:
    link = tmp_path / "link.csv"
    link.symlink_to(write(tmp_path, CSV))
    assert invoke("import", link, "--json").document["inserted"] == 4
    assert link.is_symlink()


def test_two_detached_imports_of_a_file_have_each_their_own_copy(
    tables: Tables, data_dir: Path, tmp_path: Path
) -> None:
    path = write(tmp_path, CSV)
    for _ in range(2):
        ended = invoke("import", path, "--detach", "--json")
        assert ended.code == 0
        assert list(ended.document) == ["run_id", "state"]
        assert ended.document["state"] == "waiting"
    spooled = sorted((data_dir / "spool").iterdir())
    assert sorted(run.request["source"] for run in tables.runs()) == [str(copy) for copy in spooled]
    assert len(spooled) == 2
    path.unlink()
    assert invoke("run", "--burst").code == 0
    assert [run.state for run in tables.runs()] == ["succeeded"] * 2
    assert len(tables.titles()) == 8
    assert list((data_dir / "spool").iterdir()) == []


def test_what_a_detached_import_says(tables: Tables, tmp_path: Path) -> None:
    ended = invoke("import", write(tmp_path, CSV), "--detach")
    (run,) = tables.runs()
    assert ended.out == f"run {run.id} is waiting; look at it with: python -m worker runs show {run.id}\n"
    assert ended.err == ""


def test_the_spool_is_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_DATA_DIR", str(tmp_path / "new" / "data"))
    assert invoke("import", write(tmp_path, CSV), "--detach").code == 0
    spool = tmp_path / "new" / "data" / "spool"
    (copy,) = spool.iterdir()
    assert [oct(path.stat().st_mode & 0o777) for path in (spool.parent, spool, copy)] == ["0o700", "0o700", "0o600"]


def test_the_report_for_eyes(tables: Tables, tmp_path: Path) -> None:
    ended = invoke("import", write(tmp_path, "title\n" + "x\n" * 1234))
    words = [line.split() for line in ended.out.splitlines()]
    assert words[1:7] == [
        ["state", "succeeded"],
        ["rows_read", "1,234"],
        ["inserted", "1,234"],
        ["updated", "0"],
        ["unchanged", "0"],
        ["skipped", "0"],
    ]
    assert ended.err == ""
