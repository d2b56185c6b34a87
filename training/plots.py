"""Pictures of what was learned. matplotlib is imported when a picture is made, and draws without a display."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from immunogate.basis import Eigenbasis
from immunogate.errors import MissingExtraError, UsageError
from immunogate.files import write_whole
from immunogate.structs import Floats

_ROWS, _COLUMNS = 4, 8
_LEVELS = (0.80, 0.90, 0.95, 0.99)
_INK, _QUIET, _ACCENT = "#1f2933", "#7b8794", "#b4431f"


def picture_of_basis(basis: Eigenbasis, path: Path) -> None:
    """Write a PNG: the mean face and the 31 leading eigenfaces, beside the variance that they explain.

    Eigenfaces are shown from negative (blue) over 0 (white) to positive (red), each on its own scale, with their
    share of the total variance; the curve is marked where it passes 80, 90, 95 and 99 %.

    Raises:
        MissingExtraError: matplotlib is not installed.
        UsageError: faces that are not square, or the file can not be written.
    """
    side = math.isqrt(basis.pixels)
    if side * side != basis.pixels:
        raise UsageError(f"expected a basis of square faces to draw, got {basis.pixels} pixels")
    figure = _new_figure()
    left, right = figure.subfigures(1, 2, width_ratios=(1.72, 1), wspace=0.03)
    _draw_faces(left, basis, side)
    _draw_energy(right, basis)
    metadata = {"Software": None}  # no version in the file: equal pictures are equal bytes
    write_whole(path, lambda temporary: figure.savefig(temporary, format="png", dpi=150, metadata=metadata))


def _new_figure() -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(14, 5.6), facecolor="white", layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08))
    FigureCanvasAgg(figure)
    return figure


def _draw_faces(panel: Any, basis: Eigenbasis, side: int) -> None:
    panel.suptitle(
        "Mean face and leading eigenfaces:  number, share of the variance;  red is brighter, blue darker than the mean",
        color=_INK,
        fontsize=11,
    )
    axes = panel.subplots(_ROWS, _COLUMNS).ravel()
    for axis in axes:
        axis.set_axis_off()
    axes[0].imshow(basis.mean.reshape(side, side), cmap="gray")
    axes[0].set_title("mean", color=_ACCENT, fontsize=9, pad=3)
    shares = np.diff(basis.explained(), prepend=0.0)
    for number, (axis, row, share) in enumerate(zip(axes[1:], basis.basis, shares, strict=False), start=1):
        peak = _scale(row)
        axis.imshow(row.reshape(side, side), cmap="RdBu_r", vmin=-peak, vmax=peak)
        axis.set_title(f"{number}   {_percent(share)}", color=_INK, fontsize=9, pad=3)


def _percent(share: float) -> str:
    """Two or three digits, so that a row of labels has one width."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.1f} %" if percent >= 1 else f"{percent:.2f} %"


def _scale(row: Floats) -> float:
    """The magnitude that all but 0.5 % of the pixels stay below: a single bright pixel may not fade the rest."""
    return float(np.quantile(np.abs(row), 0.995)) or 1.0


def _draw_energy(panel: Any, basis: Eigenbasis) -> None:
    panel.suptitle("Variance explained by the leading eigenfaces", color=_INK, fontsize=11)
    axis = panel.subplots()
    explained = basis.explained()
    counts = np.arange(1, basis.components + 1)
    axis.fill_between(counts, 100 * explained, color=_ACCENT, alpha=0.08, linewidth=0)
    axis.plot(counts, 100 * explained, color=_ACCENT, linewidth=2)
    axis.plot(counts[-1], 100 * explained[-1], "o", color=_ACCENT, markersize=6, clip_on=False)
    for level, count in _crossings(explained):
        axis.plot(count, 100 * level, "o", color=_ACCENT, markersize=6, markeredgecolor="white")
        label = f"{100 * level:.0f} %:  {count:,}"
        axis.annotate(
            label,
            (count, 100 * level),
            (-9, 4),
            textcoords="offset points",
            ha="right",
            color=_INK,
            fontsize=10,
        )
    axis.set(xscale="log", xlim=(1, max(basis.components, 2)), ylim=(0, 104))
    axis.set_xlabel(f"eigenfaces kept, of {basis.components:,} (logarithmic)", color=_INK)
    axis.set_ylabel("share of the total variance in %", color=_INK)
    _tidy(axis, basis)


def _crossings(explained: npt.NDArray[np.float64]) -> list[tuple[float, int]]:
    """Each level that is reached, with the number of eigenfaces that reaches it."""
    counts = np.searchsorted(explained, _LEVELS) + 1
    return [(level, int(n)) for level, n in zip(_LEVELS, counts, strict=True) if n <= len(explained)]


def _tidy(axis: Any, basis: Eigenbasis) -> None:
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.minorticks_off()
    axis.tick_params(colors=_QUIET, labelsize=9)
    axis.grid(color=_QUIET, alpha=0.2, linewidth=0.6)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(_QUIET)
    note = f"all {basis.components:,} together: {100 * basis.explained()[-1]:.1f} %"
    if basis.samples:
        note += f"\nfitted on {basis.samples:,} faces"
    axis.text(0.97, 0.04, note, transform=axis.transAxes, ha="right", color=_QUIET, fontsize=10)
