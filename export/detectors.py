"""The face detectors that export takes, each brought to the one contract of a bundle: the outputs of a YuNet."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto

from immunogate.export.onnx_graph import is_yunet, portable_yunet, read_detector
from immunogate.export.scrfd import looks_like_scrfd, portable_scrfd


def portable_detector(path: Path) -> tuple[ModelProto, str]:
    """A detector for pictures of any height and width that are multiples of 32, and its architecture.

    Args:
        path: of a YuNet (of any recorded input size, or dynamic), or of insightface's SCRFD with key points
            (``det_500m``, ``det_2.5g``, ``det_10g``).

    Raises:
        UsageError: the file is not there.
        InputError: it is no ONNX file, neither of the two, or an SCRFD that does not take all sizes.
    """
    model = read_detector(path)
    if not is_yunet(model) and looks_like_scrfd(model):
        return portable_scrfd(model, str(path)), "scrfd"
    return portable_yunet(path), "yunet"
