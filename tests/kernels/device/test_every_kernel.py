"""Every kernel over drawn shapes, run on the host: what tests/gpu/test_every_kernel.py does on a GPU, in small."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from fake_device import EmulatedCalls
from kernel_parity import CHECKS, Check, Limits, Place, run

from immunogate.kernels.compile import SOURCES
from immunogate.kernels.device import Device

SMALL = Limits(batch=5, clones=40, genes=90, pixels=2000, templates=60)


@pytest.fixture
def on_host(no_code: None, emulator_library: ctypes.CDLL) -> Iterator[Device]:
    with Device(EmulatedCalls(emulator_library), strict=True) as device:
        yield device


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_kernel_is_its_definition(on_host: Device, check: Check) -> None:
    run(check, on_host, 3, SMALL)
    assert on_host.live == {}


def test_every_kernel_has_a_check() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES.glob("*.cu"))
    plain = re.findall(r'extern "C" __global__ void __launch_bounds__\(\d+\)\n(\w+)\(', text)
    made = re.findall(r"^(?:PROJECT|ACT_CHOSEN|ACT_DENSE)\((\w+),", text, re.MULTILINE)
    assert frozenset().union(*CHECKS.values()) == {*plain, *made} - {"NAME"}


def test_every_check_launches_what_it_says(on_host: Device) -> None:
    launches: Any = on_host.calls
    for check, names in CHECKS.items():
        launches.launches.clear()
        for seed in range(2):
            run(check, on_host, seed, Limits(batch=9, clones=9, genes=9, pixels=100, templates=9))
        assert set(launches.launches) == names


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_wrong_result_is_found(on_host: Device, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever array a check looks at first, a changed number in it is not overlooked."""
    read: Callable[[Place, Any], Any] = Place.get

    def changed(place: Place, view: Any) -> Any:
        found = read(place, view)
        found.reshape(-1)[0] = found.reshape(-1)[0] + np.array(5, found.dtype)
        return found

    monkeypatch.setattr(Place, "get", changed)
    with pytest.raises(AssertionError):
        run(check, on_host, 3, SMALL)
    assert on_host.live == {}
