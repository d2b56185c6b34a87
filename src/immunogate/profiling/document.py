"""The profile as a JSON document: reading one back, with errors that name what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from immunogate.errors import InputError
from immunogate.files import read_bytes

SCHEMA = "immunogate.profile/1"
SWEEP_SCHEMA = "immunogate.sweep/1"
LARGEST = 256 << 20
"""Bytes of a document that is read."""

NEEDED = ("settings", "environment", "stages", "samples_ms", "runs")


def load_profile(path: Path) -> dict[str, Any]:
    """A document that ``immunogate profile --json`` wrote.

    Raises:
        UsageError: there is no such file.
        InputError: it is no such document, or of another version.
    """
    data = read_bytes(path, LARGEST)
    try:
        document = json.loads(data)
    except ValueError as error:
        raise InputError(f"{path} is no JSON document", "Give one that immunogate profile --json wrote") from error
    stated = document.get("schema") if isinstance(document, dict) else None
    if stated != SCHEMA or not all(isinstance(document.get(name), dict | list) for name in NEEDED):
        raise InputError(
            f"{path} is no profile of this version: expected schema {SCHEMA}, got {stated}",
            "Give one that immunogate profile --json wrote",
        )
    found: dict[str, Any] = document
    return found
