"""Files written whole or not at all, hashed, and found."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from immunogate.errors import InputError, UsageError


def sha256_of_bytes(data: bytes) -> str:
    """The SHA-256 of ``data`` as 64 lower-case hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's content, read in blocks, as 64 lower-case hexadecimal digits.

    Raises:
        UsageError: the file is not there or can not be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise UsageError(f"{path} can not be read: {error.strerror}") from error
    return digest.hexdigest()


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a file of at most ``limit`` bytes.

    Raises:
        UsageError: the file is not there or can not be read.
        InputError: the file is larger than the limit.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            data = b"" if size > limit else stream.read(limit + 1)  # devices and growing files say less than they hold
        if max(size, len(data)) > limit:
            raise InputError(f"{path} has {max(size, len(data)):,} bytes, more than the limit of {limit:,}")
        return data
    except OSError as error:
        raise UsageError(f"{path} can not be read: {error.strerror}") from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` which takes its place when the block ends without an error.

    A crash, an interrupt or a full disk leaves what stood at ``path`` before.

    Raises:
        UsageError: the folder can not be written, the disk is full, or a folder or device stands at ``path``.
    """
    temporary: Path | None = None
    try:
        if path.exists() and not path.is_file():  # root would replace /dev/null itself
            raise UsageError(f"{path} can not be written: it is no regular file", "Name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _make_durable(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise UsageError(f"{path} can not be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file through ``write(temporary_path)``, whole or not at all (see `written_whole`)."""
    with written_whole(path) as temporary:
        write(temporary)


def _make_durable(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def find_data() -> Path | None:
    """The folder of development data: ``IMMUNOGATE_DATA``, else ``../shared/data`` from here; None if absent."""
    named = os.environ.get("IMMUNOGATE_DATA")
    folder = Path(named) if named else Path("../shared/data")
    return folder.resolve() if folder.is_dir() else None
