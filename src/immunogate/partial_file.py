"""A download that is under way: what has come so far, and of which file it is."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from immunogate.errors import UsageError


class PartialFile:
    """What has come so far, and the entity tag of the file it is of.

    Args:
        path: of the part.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tag = path.with_name(path.name + ".etag")

    def size(self) -> int:
        """Bytes that have come."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def tag(self) -> str:
        """The strong entity tag that came with them, or nothing."""
        return _strong(self._tag.read_text(encoding="latin-1")) if self._tag.is_file() else ""

    def begin(self, tag: str | None) -> None:
        """Empty the part, for a file with this tag."""
        self.path.write_bytes(b"")
        self._tag.write_text(_strong(tag or ""), encoding="ascii")

    def clear(self) -> None:
        """Forget all that has come."""
        self.path.write_bytes(b"")
        self._tag.unlink(missing_ok=True)

    def become(self, target: Path) -> None:
        """Give the file its name."""
        with self.path.open("rb") as stream:
            os.fsync(stream.fileno())
        self.path.replace(target)
        self._tag.unlink(missing_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing the same part.

        Raises:
            UsageError: one does.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"{self.path.parent} is being written by another download", "Wait for it") from error
            try:
                yield
            finally:
                if self.path.is_file() and self.size() == 0:
                    self.path.unlink()
                    self._tag.unlink(missing_ok=True)


def _strong(tag: str) -> str:
    """The tag itself, or nothing: weak ones promise no equal bytes (RFC 9110, 8.8.3)."""
    return tag if re.fullmatch(r'"[\x21\x23-\x7e]*"', tag) else ""
