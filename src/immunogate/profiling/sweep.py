"""A grid of profiles: what a frame costs against faces, clones and whatever else was varied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from immunogate.pages.markup import Html, Part, element, join
from immunogate.pages.page import Section, band, definitions, figure, figures, listed, page, paragraph
from immunogate.pages.svg import Axis, Point, Series, linear_axis, plot
from immunogate.pages.table import Column, Group, table
from immunogate.profiling.drawings import heat_map, wide_figure

STRAIGHT = "faces"
"""The axis along which cost is fitted by a straight line: so much for a frame, so much for each face."""

MOST_SERIES = 10


def fits(points: Sequence[dict[str, Any]], axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Milliseconds of a frame without faces and of each face, for every combination of the other axes.

    By least squares over the medians; empty where fewer than three numbers of faces were measured.
    """
    if len(axes.get(STRAIGHT, [])) < 3:
        return []
    found = []
    for others in _others(points, STRAIGHT):
        here = [point for point in points if _without(point["at"], STRAIGHT) == others]
        x = np.array([float(point["at"][STRAIGHT]) for point in here])
        y = np.array([float(point["frame_ms"]) for point in here])
        slope, start = np.polyfit(x, y, 1)
        residual = float(np.abs(y - start - slope * x).max())
        found.append({"at": others, "frame_ms": round(float(start), 3), "each_face_ms": round(float(slope), 3),
                      "largest_residual_ms": round(residual, 3)})  # fmt: skip
    return found


def sweep_to_text(document: dict[str, Any]) -> str:
    """A row for every point, and the fits."""
    axes = list(document["axes"])
    head = "".join(f"{name:>14}" for name in axes)
    lines = [f"{head}{'frame ms':>11}{'age ms':>10}{'a face ms':>11}{'frames/s':>10}{'n':>7}{'spread':>9}"]
    for point in document["points"]:
        where = "".join(f"{point['at'][name]!s:>14}" for name in axes)
        spread = "-" if point["spread_percent"] is None else f"{point['spread_percent']:.1f} %"
        lines.append(
            f"{where}{point['frame_ms']:>11.2f}{_ms(point['age_ms']):>10}{_ms(point['each_face_ms']):>11}"
            f"{point['frames_per_second']:>10.1f}{point['n']:>7}{spread:>9}"
        )
    for fit in document["fits"]:
        where = ", ".join(f"{name} {value}" for name, value in fit["at"].items())
        lines.append(
            f"{where + ': ' if where else ''}a frame costs {fit['frame_ms']:.2f} ms and each face "
            f"{fit['each_face_ms']:.2f} ms more (off by {fit['largest_residual_ms']:.2f} ms at the most)"
        )
    lines += [f"warning: {warning}" for warning in document["warnings"]]
    return "\n".join(lines)


def sweep_page(document: dict[str, Any]) -> str:
    """The sweep as one HTML page that loads nothing and runs no script."""
    axes, points = document["axes"], document["points"]
    varied = [name for name, values in axes.items() if len(values) > 1]
    title = f"Sweep of {', '.join(document['bundles'])}"
    said = band("warn", "Read with care", listed(document["warnings"])) if document["warnings"] else None
    head = join([paragraph("Latency sweep", class_="kicker"), element("h1", title), said])
    machine, settings = document["environment"], document["settings"]
    facts: dict[str, Part] = {
        "processor": f"{machine['cpu']}, {machine['processors']} usable",
        "GPU": machine["gpu"] or "none told",
        **{name: str(value) for name, value in settings.items() if value is not None},
    }
    sections = [
        *([Section("map", "Heat map", _map(points, axes, varied[:2]))] if len(varied) > 1 else []),
        Section("curves", "Scaling", figures(_curves(points, axes, varied))),
        Section("points", "All points", join([_table(points, axes), _stage_table(points, axes)])),
        Section("setting", "Where and how", definitions(facts)),
    ]
    foot = f"Made by immunogate {document['version']}, {machine['date']}."
    return page(title, head, sections, foot)


def _map(points: Sequence[dict[str, Any]], axes: dict[str, list[Any]], names: list[str]) -> Html:
    """Milliseconds of a frame over two axes; over all others the first value."""
    across, down = names
    fixed = {name: values[0] for name, values in axes.items() if name not in names}
    values = {
        (axes[across].index(point["at"][across]), axes[down].index(point["at"][down])): point["frame_ms"]
        for point in points
        if all(point["at"][name] == value for name, value in fixed.items())
    }
    columns, rows = ([f"{name} {value}" for value in axes[name]] for name in (across, down))
    drawing = heat_map(f"Milliseconds of a frame by {across} and {down}", columns, rows, values)
    words = ", ".join(f"{name} {value}" for name, value in fixed.items())
    return wide_figure(drawing, f"Median milliseconds of work on a frame{', ' + words if words else ''}.", "Cost")


def _curves(points: Sequence[dict[str, Any]], axes: dict[str, list[Any]], varied: list[str]) -> list[Html]:
    """A drawing for each axis of numbers; a line for each combination of the other axes."""
    drawings = []
    for name in varied:
        if not all(isinstance(value, int) for value in axes[name]):
            continue
        series = []
        for look, others in enumerate(_others(points, name)[:MOST_SERIES]):
            here = [point for point in points if _without(point["at"], name) == others]
            words = ", ".join(f"{key} {others[key]}" for key in others if key in varied) or "frame"
            series.append(Series(words, [Point(point["at"][name], point["frame_ms"]) for point in here], look))
        most = max(point["frame_ms"] for point in points)
        drawing = plot(f"Milliseconds of a frame against {name}", _axis(name, axes[name]),
                       linear_axis("milliseconds of a frame, p50", 0, most), series)  # fmt: skip
        drawings.append(figure(drawing, "Medians.", f"Against {name}"))
    return drawings


def _axis(name: str, values: list[int]) -> Axis:
    return Axis(name, 0, max(values), tuple(float(value) for value in sorted(values)))


def _table(points: Sequence[dict[str, Any]], axes: dict[str, list[Any]]) -> Html:
    numbers = ("frame", "capture to decision", "a face", "frames/s", "n", "spread %")
    rows: list[list[Part]] = [
        [*_place(point, axes), f"{point['frame_ms']:.2f}", _ms(point["age_ms"]), _ms(point["each_face_ms"]),
         f"{point['frames_per_second']:.1f}", str(point["n"]), _ms(point["spread_percent"])]
        for point in points
    ]  # fmt: skip
    return table("Medians in milliseconds", _columns(axes, numbers), [Group(rows)])


def _stage_table(points: Sequence[dict[str, Any]], axes: dict[str, list[Any]]) -> Html:
    stages = list(dict.fromkeys(stage for point in points for stage in point["stages_ms"]))
    rows: list[list[Part]] = [
        [*_place(point, axes), *(_ms(point["stages_ms"].get(stage)) for stage in stages)] for point in points
    ]
    return table("Medians of the stages in milliseconds", _columns(axes, stages), [Group(rows)])


def _place(point: dict[str, Any], axes: dict[str, list[Any]]) -> list[Part]:
    return [str(point["at"][name]) for name in axes]


def _columns(axes: dict[str, list[Any]], numbers: Sequence[str]) -> list[Column]:
    return [Column(name) for name in axes] + [Column(name, number=True) for name in numbers]


def _others(points: Sequence[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for point in points:
        others = _without(point["at"], name)
        if others not in found:
            found.append(others)
    return found


def _without(at: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in at.items() if key != name}


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
