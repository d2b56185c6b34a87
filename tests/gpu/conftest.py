"""A real GPU for the tests here. Where there is none they are skipped with the driver's own reason.

With IMMUNOGATE_REQUIRE_GPU=1 a missing GPU, binding or compiler fails them instead (make test-gpu).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from immunogate.kernels.device import Device, binding_versions, open_device, probe


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything beside this file needs a GPU."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(scope="session")
def missing() -> Callable[[str], NoReturn]:
    """Skip, or fail where a GPU is required."""

    def say(why: str) -> NoReturn:
        if os.environ.get("IMMUNOGATE_REQUIRE_GPU") == "1":
            pytest.fail(f"IMMUNOGATE_REQUIRE_GPU is 1, and {why}")
        pytest.skip(why)

    return say


INSTALLED = [name for name, version in binding_versions().items() if version]


@pytest.fixture(params=INSTALLED or ["no binding"])
def device(request: pytest.FixtureRequest, missing: Callable[[str], NoReturn]) -> Iterator[Device]:
    """A strict device through each installed binding: what a test leaves open fails it."""
    state = probe()
    if not state.usable:
        missing(state.problem)
    if not INSTALLED:
        missing("neither PyCUDA nor cuda-core is installed")
    with open_device(binding=request.param, strict=True) as opened:
        yield opened
