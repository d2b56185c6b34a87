"""Tests against public wheels, which are downloaded once into the user's cache (make test-fetch)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immunogate.places import user_cache

TOOLS = Path(__file__).parents[2] / "tools"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything beside this file downloads."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.fetch)


@pytest.fixture(scope="session")
def tool() -> Any:
    """`tools/tensorrt_names.py`."""
    sys.path.insert(0, str(TOOLS))
    try:
        import tensorrt_names
    finally:
        sys.path.pop(0)
    return tensorrt_names


@pytest.fixture(scope="session")
def fetched(tool: Any) -> Callable[[str], Path]:
    """Where a wheel lies unpacked; skips where it can not be had, with pip's own reason."""

    def fetch(requirement: str) -> Path:
        try:
            path: Path = tool.fetch(requirement, user_cache() / "wheels")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"{requirement} can not be downloaded: {error.stderr.strip().splitlines()[-1]}")
        return path

    return fetch
