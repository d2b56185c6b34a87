"""Real pairs of keys for tests, made once: what is no fake here is the cryptography."""

from __future__ import annotations

from pathlib import Path

from immunogate.keys import PRIVATE_NAME, PUBLIC_NAME, PrivateKey, load_private_key, make_keys


class Pair:
    """A new pair of keys in a folder."""

    def __init__(self, folder: Path) -> None:
        make_keys(folder)
        self.private, self.public = folder / PRIVATE_NAME, folder / PUBLIC_NAME

    def key(self) -> PrivateKey:
        return load_private_key(self.private)
