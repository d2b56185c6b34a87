"""What ``immunogate calibrate clones`` says: a table, data and a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from immunogate.calib.clone_budget import Tried
    from immunogate.calib.curves import Rate
    from immunogate.manifest import Manifest


def to_text(tried: list[Tried], chosen: Tried | None, others: list[Tried], budget_ms: float, why: str) -> str:
    """All settings as a table, fastest first; ``why`` no attack was run, empty where one was."""
    from immunogate.calib.clone_budget import on_front

    replayed = "noise" if why else "replayed"
    lines = [
        f"{'setting':<22}{'p50 ms':>9}{'p99 ms':>9}{'threshold':>11}{'clean':>8}{replayed:>10}{'adaptive':>10}"
        f"   95 % of the last   n"
    ]
    front = on_front(tried)
    rows = sorted(zip(tried, front, strict=True), key=lambda pair: pair[0].p99_ms)
    lines += [_row(one, best, one is chosen, one.p99_ms > budget_ms) for one, best in rows]
    lines.append("true accept rates at each setting's own threshold (FMR 1e-3), of people who did not set it")
    if why:
        lines.append(why)
    if others:
        lines.append(f"not to be told from the chosen one by so few: {'; '.join(str(one.setting) for one in others)}")
    return "\n".join(lines)


def _row(one: Tried, best: bool, is_chosen: bool, is_slow: bool) -> str:
    said = {"front": best, "CHOSEN": is_chosen, "over the budget": is_slow}
    last = one.adaptive or one.replayed
    return (
        f"{one.setting!s:<22}{one.p50_ms:>9.2f}{one.p99_ms:>9.2f}{one.threshold:>11.4f}{_cell(one.clean):>8}"
        f"{_cell(one.replayed):>10}{_cell(one.adaptive):>10}   {_ends(last)}{last.of:>5}  "
        f"{' '.join(word for word, there in said.items() if there)}"
    )


def _cell(rate: Rate | None) -> str:
    return "-" if rate is None or rate.rate is None else f"{rate.rate:.3f}"


def _ends(rate: Rate) -> str:
    return f"{rate.low or 0:.3f} to {rate.high or 0:.3f}"


def to_data(
    tried: list[Tried], chosen: Tried | None, others: list[Tried], budget_ms: float, why: str, manifest: Manifest | None
) -> dict[str, Any]:
    """The same as plain data."""
    from immunogate.calib.clone_budget import on_front
    from immunogate.cli.calibrate_clones import CAUTION

    rows = [
        {**dataclasses.asdict(one), "name": str(one.setting), "front": best}
        for one, best in zip(tried, on_front(tried), strict=True)
    ]
    return {
        "budget_ms": budget_ms,
        "settings": rows,
        "chosen": None if chosen is None else str(chosen.setting),
        "not_told_apart": [str(one.setting) for one in others],
        "not_attacked": why,
        "caution": CAUTION,
        "model_id": None if manifest is None else manifest.model_id,
        "embedding_hash": None if manifest is None else manifest.embedding_hash(),
    }


def plot_front(tried: list[Tried], chosen: Tried | None, budget_ms: float, path: Path) -> None:
    """Latency against the true accept rate under attack (adaptive where it was run); PNG or SVG by the ending."""
    from immunogate.calib.clone_budget import on_front
    from immunogate.cli.calibrate_report import new_figure, save_figure

    figure = new_figure()
    axes = figure.subplots()
    for one, best in zip(tried, on_front(tried), strict=True):
        rate = (one.adaptive or one.replayed).rate or 0.0
        colour = "#b4431f" if one is chosen else "#1f2933" if best else "#7b8794"
        axes.plot([one.p99_ms], [rate], "o" if one.adaptive else "x", color=colour)
        axes.annotate(f" {one.setting}", (one.p99_ms, rate), fontsize=7, color=colour)
    axes.axvline(budget_ms, color="#7b8794", linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="p99 of one face, ms", ylabel="true accept rate under attack (x: replayed alone)")
    axes.grid(alpha=0.3)
    save_figure(figure, path)
