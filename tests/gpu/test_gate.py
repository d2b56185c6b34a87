"""The same frames and seed give the same decisions on a GPU and on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.kernels.antibody import MODES
from immunogate.kernels.device import Device
from immunogate.runtime.chain import open_chain


@pytest.mark.parametrize("mode", MODES)
def test_masks_and_winners_are_equal_and_embeddings_close(device: Device, tiny_bundle: Bundle, mode: str) -> None:
    device.close()  # the chain opens its own
    crops = np.random.default_rng(2).integers(0, 256, (5, 112, 112), np.uint8)
    numbers = list(range(5))
    found = []
    for backend in ("cpu", "cuda"):
        with open_chain(tiny_bundle, mode=mode, backend=backend) as chain:
            found.append(chain.recognise(crops, numbers, numbers))
    cpu, cuda = found
    assert np.array_equal(cpu.antibodies.weights, cuda.antibodies.weights)
    if cpu.antibodies.winners is not None:
        assert np.array_equal(cpu.antibodies.winners, cuda.antibodies.winners)
    np.testing.assert_allclose(cuda.faces, cpu.faces, atol=1e-4)
    np.testing.assert_allclose(cuda.purified, cpu.purified, atol=1e-4)
