"""The demo's picture: one row for each act, from the frame to both gates' similarities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from immunogate.demo.acts import Played, Seen
from immunogate.demo.gates import Limits
from immunogate.demo.verdicts import sentence
from immunogate.errors import MissingExtraError
from immunogate.files import write_whole
from immunogate.runtime.align import as_picture
from immunogate.structs import Decision, Floats, Pixels

BARE, DEFENDED = "#c2572b", "#11698e"
INK, FAINT, PAPER = "#22303a", "#8896a0", "#f3f5f6"
OUTCOMES = {"allow": "#3d9a50", "deny": "#b4bec5", "alarm": "#f0a020", "unseen": "#ffffff"}
SHOWN = 0.75
"""Part of the way after which a frame is shown, the same one in all acts."""

WIDE, HEAD, ROW, FOOT = 15.0, 1.1, 2.95, 0.95
LEFT, CHART, SIDE = 0.3, 8.75, 1.65
"""Inches: margin, left edge of the charts, side of a crop."""


def draw(acts: list[Played], limits: Limits, name: str, levels: int, caption: str, path: Path) -> None:
    """Write the picture.

    Args:
        acts: the acts that were played.
        limits: of both gates; drawn.
        name: the enrolled person.
        levels: of the noise.
        caption: below the picture.
        path: PNG file to write.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingExtraError("matplotlib", "demo") from error
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT}):
        sheet = Sheet(plt.figure(figsize=(WIDE, HEAD + ROW * len(acts) + FOOT), facecolor="white"))
        sheet.words(LEFT, 0.42, "Two gates, the same frames", fontsize=20, weight="bold")
        about = f"noise of at most {levels} of 255 grey levels, made for the recogniser alone"
        sheet.words(LEFT, 0.78, about, fontsize=11, color=FAINT)
        _draw_legend(sheet)
        for row, played in enumerate(acts):
            _draw_act(sheet, HEAD + ROW * row, played, limits, name)
        sheet.words(LEFT, HEAD + ROW * len(acts) + 0.22, caption, fontsize=9, color=FAINT, linespacing=1.5, va="top")
        write_whole(path, lambda to: sheet.figure.savefig(to, dpi=100, format="png"))
        plt.close(sheet.figure)


class Sheet:
    """A figure that is addressed in inches from its upper left corner."""

    def __init__(self, figure: Any) -> None:
        self.figure = figure
        self._width, self._height = figure.get_size_inches()

    def words(self, x: float, y: float, words: str, **style: Any) -> None:
        """Text, its middle at y unless the style says otherwise."""
        self.figure.text(x / self._width, 1 - y / self._height, words, **{"va": "center", **style})

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        """Axes without frame and ticks."""
        place = (x / self._width, 1 - (y + height) / self._height, width / self._width, height / self._height)
        axes = self.figure.add_axes(place)
        axes.set(xticks=[], yticks=[])
        axes.tick_params(length=0, colors=FAINT, labelsize=8)
        for side in axes.spines.values():
            side.set_visible(False)
        return axes


def _draw_legend(sheet: Sheet) -> None:
    right = WIDE - LEFT
    for place, (label, colour) in enumerate((("undefended", BARE), ("with immunogate", DEFENDED))):
        sheet.words(CHART + 1.35 * place, 0.78, f"\u2501 {label}", color=colour, fontsize=11, weight="bold")
    for place, outcome in enumerate(("alarm", "deny", "allow")):
        sheet.words(right - 0.85 * place, 0.78, f"\u25a0 {outcome}", color=OUTCOMES[outcome], fontsize=11, ha="right")


def _draw_act(sheet: Sheet, top: float, played: Played, limits: Limits, name: str) -> None:
    sheet.words(LEFT, top + 0.14, f"{played.act.number}   {_capital(played.act.title)}", fontsize=13, weight="bold")
    colour = INK if played.as_hoped() else "#b00020"
    sheet.words(LEFT, top + 0.41, _capital(sentence(played, name)) + ".", fontsize=11, color=colour)
    seen = _shown(played)
    titles = (f"frame {seen.index}", "as it came", "noise x10", "purified")
    below = ("", _score(seen.bare), "", _score(seen.decision))
    x = LEFT
    for title, picture, words, width in zip(
        titles, _pictures(seen), below, (SIDE * 4 / 3, SIDE, SIDE, SIDE), strict=True
    ):
        axes = sheet.axes(x, top + 0.82, width, SIDE)
        axes.set_title(title, fontsize=9, color=FAINT, pad=3)
        if picture is None:
            axes.set_facecolor(PAPER)
            axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", va="center", color=FAINT)
        else:
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="lanczos", aspect="auto")
        own = BARE if title == "as it came" else DEFENDED
        sheet.words(x + width / 2, top + 0.82 + SIDE + 0.15, words, ha="center", color=own, fontsize=10, weight="bold")
        x += width + 0.14
    _draw_similarities(sheet, top + 0.82, played, limits, seen.index)


def _draw_similarities(sheet: Sheet, top: float, played: Played, limits: Limits, shown: int) -> None:
    width = WIDE - LEFT - CHART
    chart = sheet.axes(CHART, top, width, SIDE - 0.36)
    chart.set(xlim=(-0.5, len(played.frames) - 0.5), ylim=(-0.85, 1.06), yticks=(-0.5, 0, 0.5, 1), facecolor=PAPER)
    chart.set_title("similarity to the enrolled person, frame by frame", fontsize=9, color=FAINT, pad=3)
    chart.grid(axis="y", color="white", lw=1)
    chart.axvline(shown, color=FAINT, lw=1, ls=":")
    for defended, colour, threshold in ((False, BARE, limits.undefended), (True, DEFENDED, limits.threshold)):
        chart.axhline(threshold, color=colour, lw=1.2, ls=(0, (5, 3)) if defended else (5, (5, 3)))
        chart.plot(_similarities(played, defended=defended), color=colour, lw=2.2, solid_capstyle="round")
    if played.act.number == 1:
        low = min(limits.threshold, limits.undefended)
        chart.text(0.5, low - 0.05, "thresholds (dashed): above them a face matches", fontsize=8.5, va="top", color=INK)
    _draw_outcomes(sheet.axes(CHART, top + SIDE - 0.3, width, 0.3), played)


def _draw_outcomes(strip: Any, played: Played) -> None:
    """Two rows of cells, one cell a frame: what each gate did."""
    from matplotlib.colors import to_rgb

    rows = [[to_rgb(OUTCOMES[_outcome(decision)]) for decision in decisions] for decisions in zip(
        *((seen.bare, seen.decision) for seen in played.frames), strict=True)]  # fmt: skip
    strip.imshow(
        np.array(rows), aspect="auto", interpolation="nearest", extent=(-0.5, len(played.frames) - 0.5, 1.5, -0.5)
    )
    strip.axhline(0.5, color="white", lw=2)
    strip.set_yticks((0, 1), ("undefended", "immunogate"))
    for label, colour in zip(strip.get_yticklabels(), (BARE, DEFENDED), strict=True):
        label.set_color(colour)


def _score(decision: Decision | None) -> str:
    return "" if decision is None or decision.similarity is None else f"similarity {decision.similarity:+.2f}"


def _shown(played: Played) -> Seen:
    """The frame to show, or the nearest one with a face."""
    with_face = [seen for seen in played.frames if seen.look is not None and seen.look.crop is not None]
    return min(with_face or played.frames, key=lambda seen: abs(seen.index - SHOWN * len(played.frames)))


def _pictures(seen: Seen) -> tuple[Pixels, Pixels | None, Pixels | None, Pixels | None]:
    """The frame with the face's box, the crop as it came, the noise, the purified crop."""
    look = seen.look
    return (
        boxed(seen),
        None if look is None else look.crop,
        None if seen.noise is None else enlarged_noise(seen),
        None if look is None or look.purified is None else as_picture(look.purified),
    )


def boxed(seen: Seen) -> Pixels:
    """(H, W, 3) uint8 RGB: the frame with the face's box in the colour of the defended gate's outcome."""
    import cv2

    picture = np.ascontiguousarray(seen.pixels[:, :, ::-1])
    if seen.decision is not None:
        colour = tuple(int(OUTCOMES[seen.decision.outcome][at : at + 2], 16) for at in (1, 3, 5))
        left, top, right, bottom = seen.decision.box
        cv2.rectangle(picture, (left, top), (right, bottom), colour, 3, cv2.LINE_AA)
    return picture


def enlarged_noise(seen: Seen) -> Pixels:
    """(112, 112) uint8: ten times the noise on middle grey."""
    assert seen.noise is not None
    return np.asarray((127.5 + 10 * seen.noise.astype(np.float32)).clip(0, 255), np.uint8)


def _similarities(played: Played, *, defended: bool) -> Floats:
    """(frames,) with gaps where no face was seen."""
    decisions = [seen.decision if defended else seen.bare for seen in played.frames]
    return np.array([np.nan if d is None or d.similarity is None else d.similarity for d in decisions], np.float32)


def _outcome(decision: Decision | None) -> str:
    return "unseen" if decision is None else decision.outcome


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
