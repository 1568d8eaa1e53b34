import os
import pickle
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.sources import SourceError, open_source, shown


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "tasks.csv").write_bytes(b"a,b\n1,2\n")
    (folder / "sub" / "deep.csv").write_bytes(b"deep")
    (tmp_path / "secret.csv").write_bytes(b"secret")
    return folder


def refused(source: str, *roots: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_source(source, roots).close()
    error = caught.value
    assert str(error) == error.message
    assert "\n" not in error.message
    assert error.message.isprintable()
    return error


def test_a_file_below_a_root_is_opened(root: Path) -> None:
    with open_source(f"{root}/tasks.csv", [root]) as file:
        assert file.read() == b"a,b\n1,2\n"
        assert file.name == f"{root}/tasks.csv"
        assert not file.writable()


@pytest.mark.parametrize("spelling", ["{root}/sub/deep.csv", "{root}//sub/./deep.csv", "/{root}/sub/deep.csv"])
def test_every_harmless_spelling_of_a_path_is_taken(root: Path, spelling: str) -> None:
    with open_source(spelling.format(root=root), [root]) as file:
        assert file.read() == b"deep"


def test_the_root_below_which_the_file_lies_is_found_among_several(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "in-between"
    other.mkdir()
    (other / "x.csv").write_bytes(b"x")
    with open_source(f"{other}/x.csv", [root, tmp_path / "missing", other]) as file:
        assert file.read() == b"x"


def test_a_root_inside_another_is_the_one_that_counts(root: Path, tmp_path: Path) -> None:
    """Its own way there may be a link: whoever named it as a root has allowed that."""
    (root / "linked").symlink_to(tmp_path)
    assert refused(f"{root}/linked/secret.csv", root).code == "symbolic_link"
    with open_source(f"{root}/linked/secret.csv", [root, root / "linked"]) as file:
        assert file.read() == b"secret"


def test_a_root_that_is_a_link_is_known_by_both_its_names(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    for name in (link, root):
        with open_source(f"{name}/tasks.csv", [link]) as file:
            assert file.read()


def test_without_roots_every_source_is_refused(root: Path) -> None:
    error = refused(f"{root}/tasks.csv")
    assert error.code == "outside_roots"
    assert "IMPORT_ROOTS" in error.message


@pytest.fixture
def hostile(root: Path, tmp_path: Path) -> Iterator[Path]:
    (root / "link.csv").symlink_to(tmp_path / "secret.csv")
    (root / "inner.csv").symlink_to("tasks.csv")
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to("nowhere")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(root)  # the path of a socket may have about 100 bytes
        listener.bind("socket")
        os.chdir(before)
        yield root


HOSTILE = {
    "": "invalid_path",
    "tasks.csv": "invalid_path",
    "./tasks.csv": "invalid_path",
    "~/tasks.csv": "invalid_path",
    "file://{root}/tasks.csv": "invalid_path",
    "{root}/tasks.csv\0.txt": "invalid_path",
    "{root}/\ud800.csv": "invalid_path",
    "{root}/../secret.csv": "invalid_path",
    "{root}/sub/../../secret.csv": "invalid_path",
    "{root}/sub/../tasks.csv": "invalid_path",
    "/etc/passwd": "outside_roots",
    "/": "outside_roots",
    "{root}.csv": "outside_roots",
    "{root}-other/tasks.csv": "outside_roots",
    "/proc/self/environ": "outside_roots",
    "/dev/zero": "outside_roots",
    "{root}": "is_a_directory",
    "{root}/": "is_a_directory",
    "{root}/sub": "is_a_directory",
    "{root}/tasks.csv/": "is_a_directory",
    "{root}/fifo": "not_a_regular_file",
    "{root}/socket": "not_a_regular_file",
    "{root}/link.csv": "symbolic_link",
    "{root}/inner.csv": "symbolic_link",
    "{root}/up/secret.csv": "symbolic_link",
    "{root}/loop": "symbolic_link",
    "{root}/dangling": "symbolic_link",
    "{root}/missing.csv": "not_found",
    "{root}/missing/tasks.csv": "not_found",
    "{root}/tasks.csv/inner": "not_found",
    "{root}/two\nlines\x1b[31m.csv": "not_found",
    "{root}/" + "n" * 5000: "not_found",
}


@pytest.mark.parametrize(("source", "code"), HOSTILE.items(), ids=lambda value: repr(value)[:40])
def test_hostile_names_are_refused(hostile: Path, source: str, code: str) -> None:
    assert refused(source.replace("{root}", str(hostile)), hostile).code == code


def test_a_device_is_refused_where_devices_are_a_root() -> None:
    for device in ("null", "zero"):
        assert refused(f"/dev/{device}", Path("/dev")).code == "not_a_regular_file"


def test_a_file_without_read_permission_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "tasks.csv"
    path.chmod(0)
    if os.geteuid() != 0:
        assert refused(str(path), root).code == "no_permission"
        return

    # The superuser may read everything, so the system's answer is played.
    real_open = os.open

    def denying_open(name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if name == "tasks.csv":
            raise PermissionError(13, "Permission denied")
        return real_open(name, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", denying_open)
    assert refused(str(path), root).code == "no_permission"


def _becomes_a_fifo(root: Path) -> None:
    (root / "sub" / "deep.csv").unlink()
    os.mkfifo(root / "sub" / "deep.csv")


def _becomes_a_link(root: Path) -> None:
    (root / "sub" / "deep.csv").unlink()
    (root / "sub" / "deep.csv").symlink_to(root.parent / "secret.csv")


def _gets_another_folder(root: Path) -> None:
    (root.parent / "deep.csv").write_bytes(b"secret")
    (root / "sub").rename(root / "was")
    (root / "sub").symlink_to(root.parent)


@pytest.mark.parametrize(
    ("swap", "before", "code"),
    [
        (_becomes_a_fifo, "deep.csv", "not_a_regular_file"),
        (_becomes_a_link, "deep.csv", "symbolic_link"),
        (_gets_another_folder, "sub", "symbolic_link"),
    ],
)
def test_what_is_swapped_on_the_way_is_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path], None], before: str, code: str
) -> None:
    """Just before a step of the walk, what it leads to is replaced by something else."""
    real_open = os.open

    def swapping_open(name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if name == before:
            swap(root)
        return real_open(name, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swapping_open)
    assert refused(f"{root}/sub/deep.csv", root).code == code


def test_a_folder_that_is_swapped_after_its_step_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = os.open

    def swapping_open(name: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if name == "deep.csv":
            _gets_another_folder(root)
        return real_open(name, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swapping_open)
    with open_source(f"{root}/sub/deep.csv", [root]) as file:
        assert file.read() == b"deep"


def test_no_descriptor_is_left_open(hostile: Path) -> None:
    def count() -> int:
        return sum(1 for _ in Path("/dev/fd").iterdir())

    before = count()
    for source in HOSTILE:
        refused(source.replace("{root}", str(hostile)), hostile)
    open_source(f"{hostile}/sub/deep.csv", [hostile]).close()
    assert count() == before


def test_a_missing_root_is_named(tmp_path: Path) -> None:
    error = refused(f"{tmp_path}/none/x.csv", tmp_path / "none")
    assert error.code == "not_found"
    assert "import root" in error.message


def test_the_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(SourceError("not_found", "gone")))  # noqa: S301
    assert (error.code, error.message) == ("not_found", "gone")


def test_values_are_shown_on_one_short_line() -> None:
    assert shown("a\nb\x00é") == "a\\nb\\x00é"
    assert len(shown("x" * 10_000)) == 203
