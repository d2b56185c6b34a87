"""The face path with fake networks of real kernels: on the host, and on a GPU where there is one, graphs and all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_network import FakeConstantAnalyzer, FakeLinearRecogniser

from immunogate.faces_file import faces_from_pixels
from immunogate.kernels.antibody import MODES, AntibodySettings, make_antibodies
from immunogate.kernels.cpu import CpuKernels
from immunogate.kernels.device import Device
from immunogate.kernels.launch import CudaKernels
from immunogate.kernels.reference import CloneKey
from immunogate.manifest import RecogniserEntry
from immunogate.runtime.gallery import Templates
from immunogate.runtime.gpu.face_path import FacePath
from immunogate.runtime.match import match
from immunogate.runtime.recognise import Recogniser, mean_embedding
from immunogate.structs import PIXELS

GENES, LENGTH = 40, 16
ENTRY = RecogniserEntry("r.onnx", "linear", 40, 24, 44, 127.5, 128.0, "RGB", LENGTH, 18, "fp32", 2)


class OnHost:
    """The linear recogniser as a runner."""

    def __init__(self, network: FakeLinearRecogniser) -> None:
        self.name, self._network = network.name, network

    def run(self, batch: Any) -> dict[str, Any]:
        return {"embedding": self._network.run(batch)}


def parts() -> tuple[Any, Any, Any]:
    draw = np.random.default_rng(0)
    basis = np.linalg.qr(draw.normal(size=(PIXELS, GENES)))[0].T.astype(np.float32)
    probabilities = draw.random((4, GENES), dtype=np.float32)
    return draw.uniform(-0.3, 0.3, PIXELS).astype(np.float32), np.ascontiguousarray(basis), probabilities


PLACES = [("on the host", mode) for mode in ("fixed", "select")]
PLACES += [pytest.param("on a GPU", mode, marks=pytest.mark.gpu) for mode in MODES]  # type: ignore[misc]


@pytest.mark.parametrize(("anywhere", "mode"), PLACES, indirect=["anywhere"])
def test_the_graph_gives_what_the_cpu_gives(anywhere: Device, mode: str) -> None:
    mean, basis, p = parts()
    settings = AntibodySettings(mode, top_k=GENES, clones=30, keep=3, seed=2**63 + 9)
    vectors = np.random.default_rng(5).normal(size=(9, LENGTH)).astype(np.float32)
    known = Templates([str(i) for i in range(9)], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    network = FakeLinearRecogniser(anywhere, ENTRY.height, ENTRY.width, LENGTH)
    analyzer = FakeConstantAnalyzer(anywhere, p)
    recogniser = Recogniser(OnHost(network), ENTRY)  # type: ignore[arg-type]
    with (
        CudaKernels(mean, basis, anywhere) as kernels,
        CpuKernels(mean, basis) as cpu,
        FacePath(kernels, settings, analyzer, network, ENTRY, buckets=(1, 4), details=True) as path,
    ):
        path.know(known)
        path.prepare()
        made = dict(anywhere.made)
        for count in (1, 3, 2):
            crops = np.random.default_rng(count).integers(0, 256, (count, 112, 112), np.uint8)
            frames, numbers = list(range(count)), list(range(5, 5 + count))
            found = path.recognise(crops, frames, numbers)
            faces = faces_from_pixels(crops)
            c = cpu.project(faces)
            key = CloneKey(settings.seed, *(np.array(words, np.uint32) for words in (frames, numbers)))
            antibodies = make_antibodies(settings, c, None if mode == "fixed" else p[:count], key, PIXELS)
            assert np.array_equal(found.antibodies(settings).weights, antibodies.weights)
            pictures = cpu.act(c, antibodies.weights)
            np.testing.assert_allclose(found.pictures, pictures, atol=1e-4)
            np.testing.assert_allclose(found.raw, recogniser.embed(faces), atol=1e-4)
            views = recogniser.views(pictures.reshape(-1, PIXELS))
            want = mean_embedding(recogniser.embed(views.reshape(-1, PIXELS)).reshape(count, -1, LENGTH))
            np.testing.assert_allclose(found.purified, want, atol=1e-4)
            assert [answer.person for answer in found.matches] == [match(known, row).person for row in want]
            assert found.faults == [None] * count
        assert anywhere.made == made
    for part in (network, analyzer):
        part.close()
