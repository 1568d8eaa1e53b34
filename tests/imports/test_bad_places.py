"""Disks that are full, folders and files that this user may not touch."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Literal

import pytest

from holdfast.errors import QueueUnavailable
from tests.cli.command import finish, invoke, start
from tests.cli.tables import Tables
from tests.imports.files import write

ORDINARY_USER = 12345
"""A user id that owns nothing here."""
# One process for all commands, since each start takes long. The modules are loaded before root's rights are given up:
# the interpreter may lie in a folder of root's.
AS_ORDINARY_USER = f"""
import json, os, sys
from worker.cli import main
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({ORDINARY_USER})
    os.setuid({ORDINARY_USER})
for command in sys.argv[1:]:
    try:
        main(json.loads(command), prog_name="python -m worker")
    except SystemExit as end:
        print(end.code)
"""
WITH_SMALL_FILES = """
import resource
from worker.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
main(prog_name="python -m worker")
"""


def test_a_spool_without_room(tables: Tables, data_dir: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the same place in the code meets it."""
    path = write(tmp_path, "title\n" + "x" * 100 + "\n" + "y\n" * 100_000)
    ended = finish(start("import", path, folder=tmp_path, program=("-c", WITH_SMALL_FILES)))
    assert ended.code == 1
    assert ended.line == (
        f"{path} cannot be copied into the spool {data_dir}/spool: File too large; give its folder room, set"
        " HOLDFAST_DATA_DIR to another folder, or set IMPORT_ROOTS to the file's folder"
    )
    assert list((data_dir / "spool").iterdir()) == []
    assert tables.runs() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a tiny disk")
def test_a_full_disk(tables: Tables, data_dir: Path, tmp_path: Path) -> None:
    spool = data_dir / "spool"
    spool.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(spool)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        path = write(tmp_path, "title\n" + "y\n" * 100_000)
        for piped in (False, True):
            ended = invoke("import", "-", stdin=path.read_bytes()) if piped else invoke("import", path)
            assert ended.code == 1
            name = "standard input" if piped else path
            assert ended.line.startswith(f"{name} cannot be copied into the spool {spool}: No space left on device; ")
            assert list(spool.iterdir()) == []
    finally:
        subprocess.run(["umount", str(spool)], check=True)
    assert tables.runs() == []


@pytest.fixture
def open_path(tmp_path: Path) -> Path:
    """The test's folder, which pytest makes for its own user only, opened for others."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid != os.geteuid() or folder == Path("/tmp"):  # noqa: S108 - where the climbing ends
            break
        folder.chmod(0o755)
    return tmp_path


def user_id() -> int:
    return ORDINARY_USER if os.geteuid() == 0 else os.geteuid()


def give_to_ordinary(folder: Path) -> None:
    if os.geteuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, ORDINARY_USER, ORDINARY_USER)


def test_places_that_an_ordinary_user_may_not_touch(tables: Tables, data_dir: Path, open_path: Path) -> None:
    path, secret = write(open_path, "title\none\n"), write(open_path, "title\none\n", "secret.csv")
    secret.chmod(0)
    closed = open_path / "closed"
    closed.mkdir()
    give_to_ordinary(open_path)
    for folder in (closed, data_dir):
        folder.chmod(0o500)
    commands = [["import", secret], ["import", path, "--rejects", closed / "rejects.csv"], ["import", path]]
    words = [json.dumps([str(word) for word in command]) for command in commands]
    ended = finish(start(*words, folder=open_path, program=("-c", AS_ORDINARY_USER)))
    data_dir.chmod(0o700)
    unreadable, unwritable, no_spool = ended.err.splitlines()
    assert unreadable == f"error: {secret} may not be read by this user (uid {user_id()}): give it read permission"
    assert unwritable == (
        f"error: --rejects {closed}/rejects.csv: the folder {closed} cannot be written to; name a file in another one"
    )
    assert no_spool == (
        f"error: {path} cannot be copied into the spool {data_dir}/spool: Permission denied; let this user write there,"
        " set HOLDFAST_DATA_DIR to another folder, or set IMPORT_ROOTS to the file's folder"
    )
    assert ended.out.split() == ["2", "2", "2"]
    assert tables.runs() == []
    assert not (data_dir / "spool").exists()


@pytest.mark.parametrize(
    ("rejects", "line"),
    [
        ("no/r.csv", "--rejects {0}/no/r.csv: the folder {0}/no does not exist; make it, or name another file"),
        (".", "--rejects {0} is a directory; name a file in it"),
        ("pipe", "--rejects {0}/pipe is not a regular file, so it cannot be replaced; name another one"),
    ],
    ids=["no folder", "a folder", "a pipe"],
)
def test_rejects_that_cannot_be_written_are_refused_at_once(
    tables: Tables, data_dir: Path, tmp_path: Path, rejects: str, line: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    ended = invoke("import", write(tmp_path, "title\none\n"), "--rejects", tmp_path / rejects)
    assert (ended.code, ended.line) == (2, line.format(tmp_path))
    assert tables.runs() == []
    assert not (data_dir / "spool").exists()


def test_rejects_that_cannot_be_written_at_the_end_are_named(
    tables: Tables, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    rejects = tmp_path / "r.csv"
    ended = invoke("import", write(tmp_path, "title,n\nx\n"), "--rejects", rejects, "--json")
    document = ended.document
    kept = data_dir / "rejects" / f"{document['run_id']}.csv"
    assert (ended.code, document["state"], document["rejects_file"]) == (1, "succeeded", str(kept))
    assert ended.error == (
        f"run {document['run_id']} succeeded, but --rejects {rejects}: the rejected rows cannot be written"
        f" (No space left on device); they are in {kept}"
    )
    assert kept.exists()
    assert not rejects.exists()


def test_a_data_folder_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_DATA_DIR", str(write(tmp_path, "x", "data")))
    ended = invoke("import", write(tmp_path, "title\none\n"))
    assert ended.code == 2
    assert ended.line.startswith(f"{tmp_path}/tasks.csv cannot be copied into the spool {tmp_path}/data/spool: ")


@pytest.mark.parametrize(("outcome", "copies"), [("refused", 0), ("unknown", 1)])
def test_a_copy_that_a_run_may_need_is_kept(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: Literal["refused", "unknown"], copies: int
) -> None:
    """Redis may have taken the request although it did not answer."""

    async def unavailable(*_: object, **__: object) -> None:
        raise QueueUnavailable("Redis is out of reach: no answer", outcome=outcome)

    monkeypatch.setattr("worker.cli.imports.enqueue_request", unavailable)
    ended = invoke("import", write(tmp_path, "title\none\n"))
    line = "REDIS_URL: Redis is out of reach: no answer; start the server or correct the URL"
    assert (ended.code, ended.line) == (1, line)
    assert len(list((data_dir / "spool").iterdir())) == copies
