"""A profile as text for a terminal."""

from __future__ import annotations

from typing import Any

from immunogate.profiling.quantiles import QUANTILES, least_samples
from immunogate.profiling.recording import AGE, FRAME, NOT_WORK, PICK_UP, WAIT
from immunogate.profiling.summary import share_of_frame

MEANINGS = {
    AGE: "capture to decision",
    WAIT: "for the next frame",
    PICK_UP: "capture to work, decoding too",
    FRAME: "all work on one frame",
}


def profile_to_text(document: dict[str, Any]) -> str:
    """The whole of it."""
    parts = [_head(document), _stages(document["stages"])]
    parts += [part for part in (_cold(document), _resources(document), _overhead(document), _limits(document)) if part]
    parts += ["\n".join(f"warning: {warning}" for warning in document["warnings"])] if document["warnings"] else []
    return "\n\n".join(parts)


def _head(document: dict[str, Any]) -> str:
    settings, bundle = document["settings"], document["bundle"]
    lines = [
        f"{bundle['model_id']}, mode {settings['mode']}, {settings['source']}, networks on {settings['runner']}, "
        f"antibodies on {settings['backend']}"
    ]
    for number, run in enumerate(document["runs"], 1):
        lines.append(
            f"run {number}: {run['frames']} frames in {run['seconds']:.1f} s ({run['frames_per_second']} frames/s, "
            f"room for {run['capacity_frames_per_second']}), {run['skipped']} skipped, {run['faces']} faces, "
            f"{run['decisions']} decisions, jitter {_ms(run['jitter_ms'])} ms"
        )
    return "\n".join(lines)


def _stages(stages: dict[str, dict[str, Any]]) -> str:
    heading = "".join(f"{name.replace('_', '.'):>10}" for name in QUANTILES)
    lines = [f"{'stage, ms':<30}{heading}{'max':>10}{'n':>8}{'spread':>9}{'share':>8}"]
    for name, row in stages.items():
        cells = "".join(
            f"{_ms(row[key]) if row[key] is not None else f'n<{least_samples(percent)}':>10}"
            for key, percent in QUANTILES.items()
        )
        depth = "  " * name.count("/") + name.rpartition("/")[2]
        spread = "" if row["spread_percent"] is None else f"{row['spread_percent']:.1f} %"
        share = "" if name in NOT_WORK else f"{100 * share_of_frame(stages, name):.1f} %"
        lines.append(f"{depth:<30}{cells}{_ms(row['max']):>10}{row['n']:>8}{spread:>9}{share:>8}")
    told = ", ".join(f"{name}: {meaning}" for name, meaning in MEANINGS.items() if name in stages)
    return "\n".join([*lines, told, "n<N: too few samples; spread: between the medians of the runs"])


def _cold(document: dict[str, Any]) -> str:
    cold = document["cold_start"]
    if cold is None:
        return ""
    lines = [f"cold start, ms (median of {cold['n']} starts)"]
    for name, row in cold["parts_ms"].items():
        lines.append(f"{name:<30}{row['median']:>10.1f}  {row['min']:.1f} .. {row['max']:.1f}")
    return "\n".join(lines)


def _resources(document: dict[str, Any]) -> str:
    rows = {name: row for name, row in document["resources"].items() if isinstance(row, dict)}
    silent = [name for name, row in document["resources"].items() if row is None]
    lines = [f"{name:<30}{row['mean']:>10.1f}  {row['min']:.1f} .. {row['max']:.1f}" for name, row in rows.items()]
    if silent:
        lines.append(f"not told by this machine: {', '.join(silent)}")
    return "\n".join(lines)


def _overhead(document: dict[str, Any]) -> str:
    found = document["overhead"]
    if found is None:
        return ""
    return "what listening costs: " + overhead_to_text(found)


def overhead_to_text(found: dict[str, Any]) -> str:
    """What listening costs, measured in three ways, in one sentence."""
    (low, high), (least, most) = found["interval_percent"], found["cpu_interval_percent"]
    return (
        f"{found['percent']:+.2f} % of a frame by turns ({low:+.2f} .. {high:+.2f}, {found['frames']} frames each), "
        f"{found['cpu_percent']:+.2f} % of its processor time ({least:+.2f} .. {most:+.2f}), "
        f"{found['counted_percent']:.2f} % by {found['spans_per_frame']:.0f} spans of {found['span_us']:.2f} us"
    )


def _limits(document: dict[str, Any]) -> str:
    limits = document["limits"]
    if limits is None:
        return ""
    machine = limits["machine"]
    lines = [
        f"this machine: {machine['triad_gb_s']:.1f} GB/s (triad), {machine['read_gb_s']:.1f} (reading), "
        f"{machine['sgemm_gflops']:.0f} Gflop/s (sgemm), {machine['product_gflops']:.0f} (in ONNX Runtime), "
        f"{machine['threads']} threads; the higher of each counts",
        f"{'stage':<30}{'MB':>9}{'Mflop':>10}{'floor ms':>10}{'p50 ms':>10}{'times':>8}  bound by",
    ]
    for row in limits["stages"]:
        times = "" if row["times_floor"] is None else f"{row['times_floor']:.1f}"
        lines.append(
            f"{row['stage']:<30}{row['bytes'] / 1e6:>9.2f}{row['flops'] / 1e6:>10.1f}{row['floor_ms']:>10.3f}"
            f"{_ms(row['measured_ms']):>10}{times:>8}  {row['bound']}"
        )
    names = list(limits["predicted"])
    lines += ["", "predicted floors, ms (from data sheets; nothing of it was measured):"]
    lines.append(f"{'stage':<30}" + "".join(f"{name:>22}" for name in names))
    for stage in (row["stage"] for row in limits["stages"]):
        cells = [limits["predicted"][name]["stages_ms"].get(stage) for name in names]
        lines.append(f"{stage:<30}" + "".join(f"{_ms(cell):>22}" for cell in cells))
    totals = [limits["predicted"][name]["total_ms"] for name in names]
    lines.append(f"{'all':<30}" + "".join(f"{_ms(total):>22}" for total in totals))
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
