"""Folders written whole or not at all, which replace only what is of their own kind."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from immunogate.errors import UsageError


def check_free(out: Path, mark: str, what: str, *, overwrite: bool) -> None:
    """Refuse a destination that holds anything but an empty folder, or, where asked, what is to be replaced.

    Args:
        out: destination.
        mark: a file that only a folder of this kind has, by its path in it.
        what: the kind, for the error.
        overwrite: whether a folder of this kind may be replaced.

    Raises:
        UsageError: something stands there; it says whether overwriting would do.
    """
    if not out.exists():
        return
    is_one = (out / mark).is_file()
    if is_one and overwrite:
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    mend = "Add --overwrite to replace it" if is_one else "Choose another name"
    raise UsageError(f"{out} already exists{f' and is a {what}' if is_one else f' and is no {what}'}", mend)


@contextmanager
def folder_written_whole(out: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of ``out`` when the block ends without an error.

    Raises:
        UsageError: the folder can not be written.
    """
    # Named before it is made: an interrupt at any moment finds it.
    temporary = out.parent / f".{out.name}.{secrets.token_hex(8)}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _take_place(temporary, out)
    except OSError as error:
        raise UsageError(f"{out} can not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(new: Path, out: Path) -> None:
    """Move the folder ``new`` to ``out``; what stood there goes only once the new one stands, else it comes back."""
    if not out.exists():
        new.replace(out)
        return
    old = out.parent / f".{out.name}.old.{secrets.token_hex(8)}"
    try:
        out.replace(old)
        new.replace(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.replace(out)
        raise
    if old.is_symlink():
        old.unlink()
    else:
        shutil.rmtree(old, ignore_errors=True)
