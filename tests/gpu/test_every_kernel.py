"""Every kernel over drawn shapes, up to 64 faces, 4096 clones and genes: see tools/kernel_parity.py."""

from __future__ import annotations

import pytest
from kernel_parity import CHECKS, Check, Limits, run

from immunogate.kernels.device import Device

LARGE = Limits(batch=64, clones=4096, genes=4096, pixels=13000, templates=5000)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_every_kernel_is_its_definition(device: Device, check: Check, seed: int) -> None:
    run(check, device, 1000 + seed, LARGE)


def test_nothing_is_left_behind(device: Device) -> None:
    """Memory that the driver counts, after a round that loaded everything once."""
    small = Limits(batch=9, clones=70, genes=333, pixels=2100, templates=200)
    for check in CHECKS:
        run(check, device, 1, small)
    before = device.free_bytes()
    for seed in range(3):
        for check in CHECKS:
            run(check, device, seed, small)
    assert device.live == {}
    assert before - device.free_bytes() <= 16 << 20  # the driver keeps what it gave back in pools
