"""What ``immunogate calibrate threshold`` and ``inspect`` say about limits, in words, as data and as a picture."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from immunogate.calib.curves import Rate
    from immunogate.cli.calibrate_measure import Report
    from immunogate.manifest import Alarms, Calibration

PICTURES = (".png", ".svg")


def to_text(calibration: Calibration) -> str:
    """The limits as tables."""
    lines = [
        f"{calibration.status}: {calibration.source}",
        f"{'FMR':>8}{'threshold':>12}{'FMR upper 95 %':>17}{'impostor pairs':>17}{'TAR':>8}{'genuine pairs':>15}",
    ]
    lines += [
        f"{row.fmr:>8g}{row.threshold:>12.4f}{row.fmr_upper:>17.2e}{row.impostor_pairs:>17,}{row.tar:>8.3f}"
        f"{row.genuine_pairs:>15,}"
        for row in calibration.thresholds
    ]
    if any(row.upper_of_people is not None for row in calibration.thresholds):
        lines.append(
            "upper end: the wider one of Wilson's interval and of a bootstrap by person, since pairs share faces"
        )
    lines.append(
        f"alarm above an attack score of {calibration.alarm:.3f} ({100 * calibration.alarm_rate:.2g} % of clean faces)"
    )
    if calibration.alarms is not None:
        lines += _alarm_lines(calibration.alarms)
    used = calibration.measured_with
    if used is not None:
        lines += [f"FORCED: {words}" for words in used.forced]
    return "\n".join(lines)


def _alarm_lines(alarms: Alarms) -> list[str]:
    lines = [f"{'alarm signal':<24}{'limit':>8}{'asked':>10}{'flagged':>9}{'of':>7}   95 %"]
    rows = [(signal.name, f"{signal.limit:.3f}", signal) for signal in alarms.signals] + [("any of them", "", alarms)]
    lines += [
        f"{name:<24}{limit:>8}{row.asked:>10.2g}{row.flagged:>9}{row.of:>7}   {row.low:.2%} to {row.high:.2%}"
        for name, limit, row in rows
    ]
    return [*lines, f"flagged: clean faces of {alarms.people} people who set no limit; {alarms.note}"]


def report_to_text(report: Report) -> str:
    """The slices by quality, and what was left out."""
    from immunogate.calib.curves import FEWEST, NO_POSE

    lines = [
        f"by quality, at the threshold {report.sliced_at:.4f}; a comparison belongs where its lower face does:",
        f"{'':<20}{'values':>20}{'TAR':>8}{'95 %':>16}{'n':>9}{'FMR':>11}{'95 %':>22}{'n':>11}",
    ]
    lines += [
        f"{part.by + ', ' + part.part:<20}{f'{part.least:g} to {part.most:g}':>20}"
        f"{_cells(part.tar, '.3f', 8, 16, 9)}{_cells(part.fmr, '.2e', 11, 22, 11)}"
        for part in report.slices
    ]
    lines.append(f"{NO_POSE}; too few: below {FEWEST} comparisons")
    return "\n".join([*lines, *(f"left out: {words}" for words in report.unsupported), *report.unchecked])


def _cells(rate: Rate, style: str, wide: int, wider: int, count: int) -> str:
    if rate.rate is None:
        return f"{'too few':>{wide}}{'':>{wider}}{rate.of:>{count},}"
    return f"{rate.rate:>{wide}{style}}{f'{rate.low:{style}} to {rate.high:{style}}':>{wider}}{rate.of:>{count},}"


def to_data(calibration: Calibration, report: Report) -> dict[str, Any]:
    """Everything as plain data."""
    from immunogate.calib.curves import NO_POSE

    parts = [dataclasses.asdict(part) for part in report.slices]
    return {
        **dataclasses.asdict(calibration),
        "unsupported": report.unsupported,
        "unchecked": report.unchecked,
        "slices": {"threshold": report.sliced_at, "parts": parts, "pose": NO_POSE},
        "det": report.det,
    }


def check_picture(path: Path | None) -> None:
    """Refuse a picture that can not be drawn before the work, not after.

    Raises:
        UsageError: neither a PNG nor an SVG.
        MissingExtraError: matplotlib is not installed.
    """
    from importlib.util import find_spec

    if path is None:
        return
    if path.suffix.lower() not in PICTURES:
        raise UsageError(f"--plot {path}: expected a file that ends in {' or '.join(PICTURES)}")
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "train")


def plot_det(report: Report, calibration: Calibration, path: Path) -> None:
    """Write the DET curve with the thresholds marked, as PNG or SVG by the name's ending."""
    figure = new_figure()
    axes = figure.subplots()
    axes.plot(report.det["fmr"], report.det["fnmr"], color="#b4431f")
    for row in calibration.thresholds:
        axes.plot([row.fmr_upper], [1 - row.tar], "o", color="#1f2933")
        axes.annotate(f" {row.threshold:.3f}", (row.fmr_upper, 1 - row.tar))
    axes.set(xscale="log", yscale="log", xlabel="false match rate", ylabel="false non-match rate")
    axes.set_title("DET; points: thresholds at the upper end of their rate's interval", fontsize=9)
    axes.grid(alpha=0.3, which="both")
    save_figure(figure, path)


def new_figure() -> Any:
    """A figure that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write it, whole or not at all."""
    from immunogate.files import write_whole

    kind = path.suffix.lower().removeprefix(".")
    write_whole(path, partial(figure.savefig, format=kind, dpi=120))
