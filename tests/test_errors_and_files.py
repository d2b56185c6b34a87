from __future__ import annotations

import ctypes
import hashlib
import os
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from immunogate import errors
from immunogate.errors import ImmunogateError, InputError, MissingExtraError, UsageError
from immunogate.files import find_data, read_bytes, sha256_of_bytes, sha256_of_file, write_whole, written_whole

HALF = b"half of what was to be wri"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=64k") != 0:
        pytest.skip(f"a small disk can not be mounted here: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(os.fsencode(folder), 2)


@pytest.fixture
def umask() -> Iterator[None]:
    """Put the process's umask back."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


def family() -> list[type[ImmunogateError]]:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ImmunogateError)]
    return [kind for kind in found if kind is not MissingExtraError]


@pytest.mark.parametrize("kind", family())
def test_errors_say_what_and_how_to_mend(kind: type[ImmunogateError]) -> None:
    error = kind("it broke", "Glue it")
    assert (error.what, error.mend, str(error)) == ("it broke", "Glue it", "it broke. Glue it")
    assert str(kind("it broke")) == "it broke"
    assert error.exit_code == (2 if issubclass(kind, UsageError | InputError) else 1)


def test_a_missing_extra_names_package_and_command() -> None:
    error = MissingExtraError("torch", "export")
    assert "needs torch, which is not installed" in error.what
    assert error.mend == "Run: pip install 'immunogate[export]'"
    assert error.exit_code == 2


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 21) + 3])
def test_hashes_of_files_and_bytes_agree(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "f").write_bytes(data)
    assert sha256_of_file(tmp_path / "f") == sha256_of_bytes(data) == hashlib.sha256(data).hexdigest()


def test_what_can_not_be_read_is_named(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=f"{path} can not be read: {why}"):
            sha256_of_file(path)
        with pytest.raises(UsageError, match=f"{path} can not be read: {why}"):
            read_bytes(path, 1 << 20)


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # a terabyte of hole: reading it would not end
    with pytest.raises(InputError, match="1,099,511,627,776 bytes, more than the limit of 1,000"):
        read_bytes(path, 1000)
    path.write_bytes(b"abc")
    assert read_bytes(path, 3) == b"abc"
    with pytest.raises(InputError, match="3 bytes, more than the limit of 2"):
        read_bytes(path, 2)


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "f.json"
    write_whole(path, lambda temporary: temporary.write_text("one"))
    write_whole(path, lambda temporary: temporary.write_text("two"))
    assert path.read_text() == "two"
    assert list(path.parent.iterdir()) == [path]


def test_the_temporary_file_has_the_name_s_ending(tmp_path: Path) -> None:
    """Writers such as OpenCV choose the format by it."""
    with written_whole(tmp_path / "picture.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("there", [True, False])
def test_a_failure_half_way_leaves_what_stood_there(tmp_path: Path, error: type[BaseException], there: bool) -> None:
    path = tmp_path / "f"
    if there:
        path.write_bytes(b"old")

    def write(temporary: Path) -> None:
        temporary.write_bytes(HALF)
        raise error

    with pytest.raises(error):
        write_whole(path, write)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([b"old"] if there else [])


def test_the_old_file_stands_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with written_whole(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_a_full_disk_leaves_what_stood_there(tiny_disk: Path) -> None:
    path = tiny_disk / "f"
    write_whole(path, lambda temporary: temporary.write_bytes(b"old"))
    with pytest.raises(UsageError, match=f"{path} can not be written: No space left on device"):
        write_whole(path, lambda temporary: temporary.write_bytes(bytes(1 << 20)))
    assert path.read_bytes() == b"old"
    assert list(tiny_disk.iterdir()) == [path]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: None, mask: int, mode: int) -> None:
    os.umask(mask)
    write_whole(tmp_path / "f", lambda temporary: temporary.write_bytes(b""))
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode
    assert os.umask(mask) == mask  # and the process's own is as before


def test_a_folder_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/f can not be written: "):
        write_whole(tmp_path / "file" / "f", lambda temporary: temporary.write_bytes(b""))


def test_a_name_that_is_too_long_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can not be written: File name too long"):
        write_whole(tmp_path / ("x" * 300), lambda temporary: temporary.write_bytes(b""))


def test_a_folder_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{tmp_path} can not be written: it is no regular file"):
        write_whole(tmp_path, lambda temporary: temporary.write_bytes(b""))


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    """As root, `--out /dev/null` would otherwise put a plain file in its place."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UsageError, match="it is no regular file"):
        write_whole(pipe, lambda temporary: temporary.write_bytes(b""))
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_writers_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    path, sizes = tmp_path / "f", range(100_000, 100_008)
    writers = [
        threading.Thread(target=write_whole, args=(path, lambda temporary, n=size: temporary.write_bytes(bytes(n))))
        for size in sizes
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.stat().st_size in sizes
    assert list(tmp_path.iterdir()) == [path]


def test_data_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMMUNOGATE_DATA", str(tmp_path))
    assert find_data() == tmp_path.resolve()
    monkeypatch.setenv("IMMUNOGATE_DATA", str(tmp_path / "none"))
    assert find_data() is None


def test_data_is_beside_the_project_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMMUNOGATE_DATA", raising=False)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert find_data() is None
    (tmp_path / "shared" / "data").mkdir(parents=True)
    assert find_data() == (tmp_path / "shared" / "data").resolve()
