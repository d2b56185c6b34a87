from __future__ import annotations

import numpy as np
import pytest

from immunogate.bundle import Bundle
from immunogate.errors import BundleError
from immunogate.runtime.runners.onnx import OnnxRunner, usable_threads


def test_outputs_come_by_name_whatever_the_memory_layout(tiny_bundle: Bundle) -> None:
    runner = OnnxRunner(tiny_bundle.read("recogniser.onnx"), "recogniser.onnx")
    assert (runner.input_name, runner.output_names) == ("face", ["embedding"])
    assert runner.input_shape[1:] == [3, 112, 96]
    batch = np.random.default_rng(0).normal(size=(2, 3, 112, 96)).astype(np.float32)
    turned = np.asfortranarray(batch)
    assert not turned.flags.c_contiguous
    np.testing.assert_array_equal(runner.run(turned)["embedding"], runner.run(batch)["embedding"])


def test_threads_do_not_change_the_result(tiny_bundle: Bundle) -> None:
    data = tiny_bundle.read("analyzer.onnx")
    batch = np.random.default_rng(0).normal(size=(2, 1, 112, 112)).astype(np.float32)
    one, two = (OnnxRunner(data, "analyzer", threads).run(batch)["probabilities"] for threads in (1, 2))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-6)
    assert 1 <= usable_threads() <= 4


@pytest.mark.parametrize("cut", [0, 1, 1000])
def test_what_is_no_network_is_named(tiny_bundle: Bundle, cut: int) -> None:
    data = tiny_bundle.read("recogniser.onnx")[:cut]
    with pytest.raises(BundleError, match=r"does not accept recogniser\.onnx"):
        OnnxRunner(data, "recogniser.onnx")
