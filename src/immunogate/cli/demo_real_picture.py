"""The picture of the demo on real faces: a frame of the annotated video, and the similarity of each face over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from immunogate.errors import InputError, MissingExtraError
from immunogate.structs import Pixels


def draw(video: Path, decisions: list[dict[str, Any]], threshold: float, path: Path) -> None:
    """Write the picture.

    Args:
        video: the annotated video.
        decisions: lines of the run.
        threshold: drawn as a line.
        path: PNG file to write.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.2), width_ratios=(1.5, 1), layout="constrained")
    left.imshow(_frame(video, _best_moment(decisions))[:, :, ::-1])
    left.set_axis_off()
    left.set_title("the gate's view; each face as it came, and purified", loc="left")
    for track, marker in zip(sorted({line["track"] for line in decisions}), "osD^v<>", strict=False):
        _draw_track(right, [line for line in decisions if line["track"] == track], track, marker)
    right.axhline(threshold, color="black", lw=1, ls="--", label=f"threshold {threshold:.2f} (FMR 1e-3)")
    right.set_xlabel("frame (a face is looked at when it matters, not in every frame)")
    right.set_ylabel("cosine with the enrolled man")
    right.set_title("after purification (filled: allow, hollow: deny, cross: turned away)", loc="left", fontsize=10)
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_track(axes: Any, mine: list[dict[str, Any]], track: int, marker: str) -> None:
    """The looks at one face, each by its outcome."""
    allowed = any(line["outcome"] == "allow" for line in mine)
    colour = "tab:green" if allowed else "tab:red"
    axes.plot([], [], marker, color=colour, label=f"face {track}: {'allowed' if allowed else 'never allowed'}")
    for line in mine:
        if line["similarity"] is None:
            axes.plot(line["frame"], 0, "x", color=colour, ms=5)
        else:
            fill = colour if line["outcome"] == "allow" else "none"
            axes.plot(line["frame"], line["similarity"], marker, color=colour, mfc=fill, ms=6)


def _best_moment(decisions: list[dict[str, Any]]) -> int:
    """A frame with an allowed face, with as many faces seen before as possible."""
    allowed = [line["frame"] for line in decisions if line["outcome"] == "allow"]
    return int(allowed[len(allowed) // 2]) if allowed else 0


def _frame(video: Path, index: int) -> Pixels:
    capture = cv2.VideoCapture(str(video))
    capture.set(cv2.CAP_PROP_POS_FRAMES, index)
    found, pixels = capture.read()
    capture.release()
    if not found:
        raise InputError(f"frame {index} of {video} can not be read")
    return np.asarray(pixels, np.uint8)
