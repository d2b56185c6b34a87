from __future__ import annotations

import dataclasses
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immunogate.bundle import Bundle
from immunogate.faces_file import AlignedFaces, faces_from_pixels
from immunogate.manifest import RecogniserEntry
from immunogate.runtime.recognise import LARGEST_BATCH, Recogniser, mean_embedding, spread
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.structs import Floats


@pytest.fixture(scope="module")
def runner(tiny_bundle: Bundle) -> OnnxRunner:
    return OnnxRunner(tiny_bundle.read("recogniser.onnx"), "recogniser.onnx")


@pytest.fixture(scope="module")
def recogniser(runner: OnnxRunner, tiny_bundle: Bundle) -> Recogniser:
    return Recogniser(runner, tiny_bundle.manifest.recogniser)


@pytest.fixture(scope="module")
def faces() -> Floats:
    return np.random.default_rng(2).uniform(-1, 1, (2 * LARGEST_BATCH + 5, 12544)).astype(np.float32)


@pytest.mark.parametrize(
    ("left", "width", "mean", "std"), [(8, 96, 127.5, 128.0), (0, 112, 127.5, 127.5), (3, 50, 0, 255)]
)
def test_planes_are_crop_and_normalisation(
    runner: OnnxRunner, tiny_bundle: Bundle, left: int, width: int, mean: float, std: float
) -> None:
    """From grey levels, as the architecture states it: (v - mean) / std."""
    entry = dataclasses.replace(
        tiny_bundle.manifest.recogniser, crop_left=left, width=width, mean=float(mean), std=float(std)
    )
    levels = np.random.default_rng(0).integers(0, 256, (3, 112, 112), dtype=np.uint8)
    planes = Recogniser(runner, entry).planes(faces_from_pixels(levels))
    assert planes.shape == (3, 3, 112, width)
    wanted = (levels[:, :, left : left + width].astype(np.float64) - mean) / std
    for channel in range(3):
        np.testing.assert_allclose(planes[:, channel], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["mobilefacenet", "irse50", "iresnet50"])
def test_planes_are_what_training_prepares(runner: OnnxRunner, name: str, faces: Floats) -> None:
    torch = pytest.importorskip("torch")
    from immunogate.networks.recognisers import recogniser_spec

    spec = recogniser_spec(name)
    entry = RecogniserEntry(
        "r.onnx", name, spec.height, spec.width, spec.crop_left, spec.mean, spec.std, "RGB", 16, 18, "fp32"
    )
    wanted = spec.prepare(torch.from_numpy(faces[:2]).reshape(2, 1, 112, 112)).numpy()
    np.testing.assert_allclose(Recogniser(runner, entry).planes(faces[:2]), wanted, rtol=0, atol=1e-6)


def test_large_batches_equal_single_faces(recogniser: Recogniser, faces: Floats) -> None:
    together = recogniser.embed(faces)
    assert together.dtype == np.float32
    singles = np.concatenate([recogniser.embed(faces[i : i + 1]) for i in range(len(faces))])
    np.testing.assert_allclose(together, singles, rtol=0, atol=1e-6)
    assert np.abs(together - np.roll(together, 1, axis=0)).max(axis=1).min() > 1e-3  # or order would not show


def test_runs_stay_within_the_largest_batch(tiny_bundle: Bundle, faces: Floats) -> None:
    sizes = []

    class Counting(OnnxRunner):
        def run(self, batch: Any) -> dict[str, Any]:
            sizes.append(len(batch))
            return super().run(batch)

    counting = Counting(tiny_bundle.read("recogniser.onnx"), "recogniser.onnx")
    Recogniser(counting, tiny_bundle.manifest.recogniser).embed(faces)
    assert sizes == [LARGEST_BATCH, LARGEST_BATCH, 5]


@pytest.mark.data
def test_the_real_recogniser_in_batches(real_bundle: Bundle, aligned_faces: AlignedFaces) -> None:
    pytest.importorskip("torch")
    entry = real_bundle.manifest.recogniser
    recogniser = Recogniser(OnnxRunner(real_bundle.read(entry.file), entry.file), entry)
    faces = faces_from_pixels(aligned_faces.images[: LARGEST_BATCH + 3])
    together = recogniser.embed(faces)
    assert together.shape == (LARGEST_BATCH + 3, 128)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    singles = np.concatenate([recogniser.embed(face[None]) for face in faces])
    np.testing.assert_allclose(together, singles, rtol=0, atol=1e-5)


def root_network() -> bytes:
    """The root of the first 16 pixels: NaN where a pixel is negative, infinite where one is."""
    onnx = pytest.importorskip("onnx")
    helper, number = onnx.helper, onnx.numpy_helper.from_array
    nodes = [
        helper.make_node("Flatten", ["face"], ["flat"], axis=1),
        helper.make_node("Slice", ["flat", "from", "to", "axis"], ["some"]),
        helper.make_node("Sqrt", ["some"], ["embedding"]),
    ]
    ends = [number(np.array([value], np.int64), name) for name, value in (("from", 0), ("to", 16), ("axis", 1))]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "root",
        [helper.make_tensor_value_info("face", floats, ["batch", 3, 112, 96])],
        [helper.make_tensor_value_info("embedding", floats, ["batch", 16])],
        ends,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("value", [-0.5, np.inf, np.nan])
def test_embeddings_that_are_not_finite_are_an_error(tiny_bundle: Bundle, value: float) -> None:
    recogniser = Recogniser(OnnxRunner(root_network(), "root.onnx"), tiny_bundle.manifest.recogniser)
    faces = np.full((LARGEST_BATCH + 2, 12544), 0.5, np.float32)
    assert np.isfinite(recogniser.embed(faces)).all()
    faces[-1] = value  # one face, in the second run
    with pytest.raises(ValueError, match=r"root\.onnx gave an embedding that is not finite"):
        recogniser.embed(faces)


@given(seed=st.integers(0, 10**6), kept=st.integers(1, 6), length=st.integers(1, 20))
def test_mean_embedding_is_the_direction_of_the_sum(seed: int, kept: int, length: int) -> None:
    draw = np.random.default_rng(seed).normal(size=(3, kept, length)).astype(np.float32)
    mean = mean_embedding(draw)
    assert mean.shape == (3, length)
    for row, vectors in zip(mean, draw.astype(np.float64), strict=True):
        total = vectors.sum(axis=0)
        np.testing.assert_allclose(row, total / np.linalg.norm(total), rtol=1e-3, atol=1e-4)


def test_the_mean_of_opposite_embeddings_matches_nobody() -> None:
    vector = np.full((1, 16), 0.25, np.float32)
    np.testing.assert_array_equal(mean_embedding(np.stack([vector, -vector], axis=1)), np.zeros((1, 16)))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 9), st.floats(0.0, 3.0))
def test_the_spread_is_that_of_a_loop_over_pairs(seed: int, looks: int, width: float) -> None:
    draw = np.random.default_rng(seed)
    embeddings = draw.normal(size=(3, 1, 16)) + width * draw.normal(size=(3, looks, 16))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)).astype(np.float32)
    wanted = [np.mean([1 - a @ b for a, b in combinations(face, 2)]) for face in embeddings]
    found = spread(embeddings)
    assert found is not None
    np.testing.assert_allclose(found, np.clip(wanted, 0, 2), atol=1e-5)


def test_one_look_has_no_spread_and_nan_stays() -> None:
    one = np.eye(4, dtype=np.float32)[None, :1]
    assert spread(one) is None
    broken = spread(np.full((2, 3, 4), np.nan, np.float32))
    assert broken is not None
    assert np.isnan(broken).all()
    assert spread(np.stack([one[0, 0], -one[0, 0]])[None]) == 2
