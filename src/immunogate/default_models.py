"""The bundle that ships with the package, for everybody who has none of their own."""

from __future__ import annotations

import os
from importlib.resources import files
from pathlib import Path

from immunogate.errors import UsageError

VARIABLE = "IMMUNOGATE_BUNDLE"
"""Environment variable that names a bundle in the shipped one's place."""


def shipped_bundle() -> Path:
    """Where the shipped bundle belongs, whether it is there or not."""
    return Path(str(files("immunogate"))) / "models" / "default"


def default_bundle() -> Path:
    """The bundle to use where none is named: that of ``IMMUNOGATE_BUNDLE``, else the shipped one.

    Raises:
        UsageError: neither is there.
    """
    named = os.environ.get(VARIABLE)
    folder = Path(named) if named else shipped_bundle()
    if (folder / "manifest.json").is_file():
        return folder
    if named:
        raise UsageError(f"{VARIABLE} names {folder}, which is no bundle", "Name a folder with a manifest.json in it")
    raise UsageError(
        f"no bundle was named, and the one that ships is not in this installation ({folder})",
        f"Name one with --bundle or {VARIABLE}, make one with immunogate export, or install immunogate from a wheel",
    )
