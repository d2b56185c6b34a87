"""The default face detector as an ONNX file that takes the place of a YuNet."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import ModelProto

from immunogate.export.onnx_graph import exported, free_sides
from immunogate.files import write_whole
from immunogate.manifest import DETECTOR_OUTPUTS
from immunogate.networks.face_detector import FaceDetector, YunetOutputs

MULTIPLE = 32
"""Height and width are multiples of the coarsest grid's stride."""

LARGEST_SIDE = 8192


def detector_graph(network: FaceDetector) -> ModelProto:
    """The trained network with YuNet's input ``input`` (1, 3, H, W) BGR 0 to 255 and outputs `DETECTOR_OUTPUTS`.

    BatchNorm and luma are folded into the convolutions; H and W are any multiples of 32.
    """
    cells = {2: torch.export.Dim("rows", min=1, max=LARGEST_SIDE // MULTIPLE),
             3: torch.export.Dim("columns", min=1, max=LARGEST_SIDE // MULTIPLE)}  # fmt: skip
    dynamic = {axis: MULTIPLE * count for axis, count in cells.items()}
    example = torch.zeros(1, 3, 3 * MULTIPLE, 5 * MULTIPLE)
    model = exported(YunetOutputs(network), example, dynamic, "input", list(DETECTOR_OUTPUTS))
    free_sides(model)
    onnx.checker.check_model(model)
    return model


def export_detector(network: FaceDetector, path: Path) -> None:
    """Write `detector_graph`, whole or not at all.

    Raises:
        UsageError: the file can not be written.
    """
    model = detector_graph(network)
    write_whole(path, lambda temporary: onnx.save(model, temporary))
