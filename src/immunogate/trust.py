"""Whose signatures this process asks for before it opens a bundle.

Two demands, and each must be met: the keys of `VARIABLE`, for every command of a machine, and those of
``--require-signature``. So a flag can ask for more, never for less.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from immunogate.errors import UsageError
from immunogate.keys import PublicKey, load_public_key

VARIABLE = "IMMUNOGATE_TRUSTED_KEYS"
"""Environment variable: public keys, or folders with keys that end in .pem, with a colon between."""

MOST_KEYS = 64
_asked: list[tuple[Path, ...]] = []  # of the whole process: a context variable would not reach threads


@dataclass(frozen=True)
class Demand:
    """Keys of which one must have signed, and who asks."""

    by: str
    keys: tuple[PublicKey, ...]


@contextmanager
def signatures_required(paths: Sequence[Path]) -> Iterator[None]:
    """Within the block, in all threads, ask for a signature of one of these keys too; no path asks for nothing."""
    if not paths:
        yield
        return
    _asked.append(tuple(paths))
    try:
        yield
    finally:
        _asked.pop()


def is_demanded() -> bool:
    """Whether bundles have to be signed here; reads no key."""
    return VARIABLE in os.environ or bool(_asked)


def demands() -> list[Demand]:
    """What has to be met.

    Raises:
        UsageError: a named key is not there or others may exchange it, or no key is named where some must be.
        InputError: a named file is no public key.
        MissingExtraError: `cryptography` is not installed.
    """
    found = [Demand("--require-signature", _keys(paths, "--require-signature")) for paths in _asked]
    if VARIABLE in os.environ:
        words = [word for word in os.environ[VARIABLE].split(os.pathsep) if word]
        found.append(Demand(VARIABLE, _keys([Path(word) for word in words], VARIABLE)))
    return found


def _keys(paths: Sequence[Path], by: str) -> tuple[PublicKey, ...]:
    files = [file for path in paths for file in (sorted(path.glob("*.pem")) if path.is_dir() else [path])]
    if not 1 <= len(files) <= MOST_KEYS:
        raise UsageError(
            f"{by} names {len(files)} keys, and 1 to {MOST_KEYS} are expected",
            "Name public keys in PEM, or a folder that holds them as *.pem",
        )
    return tuple(load_public_key(file) for file in files)
