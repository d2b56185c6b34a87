"""Clean faces: configurations with their thresholds, and the trade-off between the two errors."""

from __future__ import annotations

from immunogate.calib.robustness.document import Configuration, Det, Document
from immunogate.calib.robustness.report.words import LOOKS, NOT_RUN, names, rate_text, share
from immunogate.pages.markup import Html, Part, element, join
from immunogate.pages.page import Section, figure, figures, paragraph
from immunogate.pages.svg import Point, Series, plot, probit_axis
from immunogate.pages.table import Column, Group, table


def clean_section(document: Document) -> Section:
    """The detection error trade-off (ISO/IEC 19795-1) and the table of configurations."""
    return Section("det", "Errors on clean faces", join([_curves(document), _table(document)]))


def _curves(document: Document) -> Html:
    kept = [(curve, _inside(curve)) for curve in sorted(document.det, key=lambda det: LOOKS[det.configuration])]
    points = [place for _, places in kept for place in places]
    if not points:
        return paragraph("Detection error trade-off: not run.", class_="none")
    called, fmr = names(document), document.setting.fmr
    series = [
        Series(
            called[curve.configuration], [Point(*place) for place in places], LOOKS[curve.configuration], marked=False
        )
        for curve, places in kept
        if places
    ]
    across, up = zip(*points, strict=True)
    guide = fmr if 0 < fmr < 1 else None
    x = probit_axis("false match rate (FMR)", min(*across, guide or 1), max(*across, guide or 0))
    y = probit_axis("false non-match rate (FNMR)", min(up), max(up))
    spoken = "; ".join(f"{each.name} {share(each.points[0].y)} at FMR {share(each.points[0].x)}" for each in series)
    drawing = plot(f"FNMR against FMR, left ends: {spoken}.", x, y, series, guide=guide)
    left_out = sum(len(curve.fmr) for curve in document.det) - len(points)
    words = (
        f"Detection error trade-off on clean pairs, both axes as normal deviates (ISO/IEC 19795-1); the dashed line is "
        f"the FMR of {fmr:g} that this evaluation is at. {left_out} points with a rate of 0 or 1 have no place here."
    )
    return figures([figure(drawing, words)])


def _inside(curve: Det) -> list[tuple[float, float]]:
    """Points by rising FMR, those that a probit axis has a place for."""
    pairs = sorted(zip(curve.fmr, curve.fnmr, strict=True), key=lambda pair: (pair[0], -pair[1]))
    return [pair for pair in pairs if 0 < pair[0] < 1 and 0 < pair[1] < 1]


def _table(document: Document) -> Html:
    columns = [
        Column("Defence"), Column("Threshold", number=True), Column("Threshold from"),
        Column("FMR measured", number=True), Column("Time of a face", number=True),
    ]  # fmt: skip
    rows = [_row(each) for each in document.configurations]
    bundle = frozenset(index for index, each in enumerate(document.configurations) if each.key == "bundle")
    return table("What was evaluated, and its threshold (a cosine)", columns, [Group(rows, strong=bundle)])


def _row(each: Configuration) -> list[Part]:
    time = each.ms_per_face
    shown = NOT_RUN if time is None else join(
        [f"{time.p50:.4g} ms", element("span", f"p50; p99 {time.p99:.4g} ms; {time.n} faces", class_="detail")]
    )  # fmt: skip
    return [each.name, f"{each.threshold:.4f}", each.threshold_from, rate_text(each.fmr_measured), shown]
