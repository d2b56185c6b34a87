"""Remembers, on this machine only, where a checkpoint with a given hash lies.

A bundle does not say where its checkpoints were: that would carry paths of the maker's machine to every gate. So
that ``immunogate verify`` finds them again all the same, export writes hash and path into the user's cache folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from immunogate.errors import ImmunogateError
from immunogate.files import read_bytes, sha256_of_file, write_whole
from immunogate.limits import parse_json

LARGEST_INDEX = 4 << 20


def remember(paths: list[Path]) -> None:
    """Note the hash and path of each file; a cache that can not be written is no error."""
    index = _read() | {sha256_of_file(path): str(path.resolve()) for path in paths}
    try:
        write_whole(_index_path(), lambda path: path.write_text(json.dumps(index, indent=1), encoding="utf-8"))
    except (ImmunogateError, RuntimeError):
        return


def find(sha256: str) -> Path | None:
    """A file that has this hash now, or None."""
    named = _read().get(sha256)
    if named is None or not Path(named).is_file():
        return None
    return Path(named) if sha256_of_file(Path(named)) == sha256 else None


def _index_path() -> Path:
    """RuntimeError where the user has no home, as in some containers."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "immunogate" / "checkpoints.json"


def _read() -> dict[str, str]:
    try:
        data = parse_json(read_bytes(_index_path(), LARGEST_INDEX).decode("utf-8"))
    except (ImmunogateError, ValueError, RuntimeError):
        return {}
    return {str(key): str(value) for key, value in data.items()} if isinstance(data, dict) else {}
