"""An SCRFD with the outputs of a YuNet finds what its own decoder finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from immunogate.errors import InputError
from immunogate.export.detectors import portable_detector
from immunogate.manifest import DETECTOR_OUTPUTS
from immunogate.runtime.detect import Detector
from immunogate.runtime.runners.onnx import OnnxRunner

pytestmark = pytest.mark.torch

STRIDES, CHANNELS = (8, 16, 32), {"score": 1, "bbox": 4, "kps": 10}
LEAST_SCORE, OVERLAP = 0.55, 0.3


def network(
    *,
    opset: int = 11,
    sides: tuple[Any, Any] = ("?", "?"),
    batched: bool = False,
    points: bool = True,
    anchors: int = 2,
    by_kind: bool = True,
    written_sides: bool = False,
) -> onnx.ModelProto:
    """A small one of random weights in the shape of insightface's files, their outputs called by numbers."""
    draw = np.random.default_rng(12)
    nodes, weights, outputs, number = [], {}, {}, 440
    for stride in STRIDES:
        pooled = f"pool{stride}"
        sizes = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes.append(helper.make_node("AveragePool", ["input.1"], [pooled], **sizes))
        for kind, channels in CHANNELS.items():
            if kind == "kps" and not points:
                continue
            name = str(number := number + 1)
            weights[f"w{name}"] = draw.standard_normal((anchors * channels, 3, 1, 1)) * 3
            weights[f"b{name}"] = draw.uniform(0.5, 2.5, anchors * channels) * (kind != "score")
            nodes.append(helper.make_node("Conv", [pooled, f"w{name}", f"b{name}"], [f"grid{name}"]))
            last = f"grid{name}"
            if kind != "kps":
                last = f"above{name}"
                nodes.append(helper.make_node("Sigmoid" if kind == "score" else "Softplus", [f"grid{name}"], [last]))
            nodes.append(helper.make_node("Transpose", [last], [f"last{name}"], perm=[0, 2, 3, 1]))
            count = anchors * (640 // stride) ** 2 if written_sides else -1
            shape = [1, count, channels] if batched else [count, channels]
            weights[f"s{name}"] = np.array(shape)
            nodes.append(helper.make_node("Reshape", [f"last{name}", f"s{name}"], [name]))
            recorded = [1, "n", channels] if batched else ["n", channels]
            outputs[kind, stride] = helper.make_tensor_value_info(name, TensorProto.FLOAT, recorded)
    order = [(kind, stride) for kind in CHANNELS for stride in STRIDES]
    order = [key for key in (order if by_kind else sorted(outputs, key=str)) if key in outputs]
    arrays = [
        numpy_helper.from_array(value if value.dtype == np.int64 else value.astype(np.float32), name)
        for name, value in weights.items()
    ]
    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, *sides])
    graph = helper.make_graph(nodes, "scrfd", [picture], [outputs[key] for key in order], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)


def by_its_own_decoder(model: onnx.ModelProto, pixels: Any) -> tuple[Any, Any, Any]:
    """Boxes, points and scores in float64, after insightface's description; of a cell's two anchors the better one."""
    free = onnx.ModelProto()
    free.CopyFrom(model)
    for axis in (2, 3):
        free.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    session = onnxruntime.InferenceSession(free.SerializeToString(), providers=["CPUExecutionProvider"])
    planes = ((pixels[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float64) - 127.5) / 128).astype(np.float32)
    results = [out.reshape(-1, out.shape[-1]).astype(np.float64) for out in session.run(None, {"input.1": planes})]
    height, width = pixels.shape[:2]
    found: list[tuple[Any, Any, Any]] = []
    for index, stride in enumerate(STRIDES):
        score, box, points = results[index], results[index + 3] * stride, results[index + 6] * stride
        y, x = np.mgrid[: height // stride, : width // stride]
        corner = np.repeat(np.stack([x, y], -1).reshape(-1, 2) * stride, 2, axis=0).astype(np.float64)
        boxes = np.concatenate([corner - box[:, :2], corner + box[:, 2:]], axis=1)
        better = np.argmax(score.reshape(-1, 2), axis=1) + np.arange(0, len(score), 2)
        found.append((boxes[better], (corner[:, None] + points.reshape(-1, 5, 2))[better], score[better, 0]))
    boxes, points, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kept: list[int] = []
    for one in np.argsort(-scores):
        if scores[one] >= LEAST_SCORE and all(_overlap(boxes[one], boxes[other]) <= OVERLAP for other in kept):
            kept.append(int(one))
    return boxes[kept], points[kept], scores[kept]


def _overlap(a: Any, b: Any) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - common)


def saved(tmp_path: Path, **options: Any) -> tuple[Path, onnx.ModelProto]:
    model = network(**options)
    onnx.save(model, tmp_path / "det.onnx")
    return tmp_path / "det.onnx", model


PIXELS = np.random.default_rng(3).integers(0, 256, (12, 20, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
"""(96, 160, 3), one colour a cell of the finest grid."""


@pytest.mark.parametrize(
    "options",
    [{}, {"sides": (640, 640)}, {"batched": True}, {"opset": 12}, {"opset": 18}],
    ids=["any size", "size recorded", "batched", "operator set 12", "operator set 18"],
)
def test_the_gates_decoder_finds_the_same_faces(options: Any, tmp_path: Path) -> None:
    path, model = saved(tmp_path, **options)
    portable, kind = portable_detector(path)
    assert kind == "scrfd"
    assert [output.name for output in portable.graph.output] == list(DETECTOR_OUTPUTS)
    runner = OnnxRunner(portable.SerializeToString(), "scrfd")
    runner.expect((None, 3, None, None), DETECTOR_OUTPUTS)
    found = Detector(runner, 640, LEAST_SCORE, OVERLAP, most=10_000, blend=1.0).detect(PIXELS)
    boxes, points, scores = by_its_own_decoder(model, PIXELS)
    assert len(scores) > 10
    assert len(found.scores) == len(scores)
    ours, theirs = np.lexsort(found.boxes.T.round(1)), np.lexsort(boxes.T.round(1))
    np.testing.assert_allclose(found.boxes[ours], boxes[theirs], atol=2e-3)
    np.testing.assert_allclose(found.landmarks[ours], points[theirs], atol=2e-3)
    np.testing.assert_allclose(found.scores[ours], scores[theirs], atol=1e-5)


def test_outputs_are_known_by_their_shapes_and_not_by_their_order(tmp_path: Path) -> None:
    plain = portable_detector(saved(tmp_path)[0])[0]
    shuffled = portable_detector(saved(tmp_path, by_kind=False)[0])[0]
    frame = {"input": PIXELS.transpose(2, 0, 1)[None].astype(np.float32)}
    first, second = (onnxruntime.InferenceSession(m.SerializeToString()).run(None, frame) for m in (plain, shuffled))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_exports_hold_the_same_bytes(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    assert portable_detector(path)[0].SerializeToString() == portable_detector(path)[0].SerializeToString()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"points": False}, "has no key points, by which faces are aligned.*det_10g"),
        ({"opset": 10}, "operator set 10, at least 11"),
        ({"anchors": 1}, r"is no SCRFD: \d+ is \(96, 1\) for a picture of 64 x 96"),
        ({"sides": (640, 640), "written_sides": True}, "does not take pictures of 64 x 96"),
    ],
)
def test_what_is_no_scrfd_for_all_sizes_is_refused(options: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        portable_detector(saved(tmp_path, **options)[0])


@pytest.mark.data
def test_a_yunet_is_still_a_yunet(yunet: Path) -> None:
    assert portable_detector(yunet)[1] == "yunet"
