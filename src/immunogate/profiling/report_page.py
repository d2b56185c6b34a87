"""A profile as one HTML page that loads nothing and runs no script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from immunogate.pages.markup import Html, Part, element, join
from immunogate.pages.page import Section, band, definitions, figures, listed, page, paragraph
from immunogate.pages.table import Column, Group, table
from immunogate.profiling.frames_drawn import distribution, sensors_drawn, slowest_frame, stacked_frames
from immunogate.profiling.quantiles import QUANTILES, least_samples
from immunogate.profiling.recording import AGE, FRAME, NOT_WORK, Recording
from immunogate.profiling.summary import share_of_frame
from immunogate.profiling.text import overhead_to_text


def profile_page(document: dict[str, Any], runs: Sequence[Recording]) -> str:
    """The whole page.

    Args:
        document: of the profile.
        runs: behind it.
    """
    sections = [
        Section("stages", "Stages", join([_stage_table(document["stages"]), paragraph(STAGE_WORDS, class_="note")])),
        Section("latency", "Latency", join([distribution(runs), stacked_frames(runs), slowest_frame(runs)])),
        *([_cold(document["cold_start"])] if document["cold_start"] else []),
        Section("machine", "The machine meanwhile", figures(sensors_drawn(runs))),
        *(_limits(document["limits"]) if document["limits"] else []),
        _setting(document),
    ]
    title = f"Profile of {document['bundle']['model_id']}"
    foot = f"Made by immunogate {document['version']}, {document['environment']['date']}."
    return page(title, _head(document, title), sections, foot)


STAGE_WORDS = (
    "Milliseconds. A percentile is told from as many samples as leave one beyond it. Spread: between the medians of "
    "the runs. Share: of all work on frames; parts are contained in their stage."
)


def _head(document: dict[str, Any], title: str) -> Html:
    age, frame, settings = document["stages"].get(AGE), document["stages"][FRAME], document["settings"]
    runs = document["runs"]
    facts: dict[str, Part] = {
        "capture to decision, p50": "nobody decided" if age is None else f"{age['p50']:.2f} ms",
        "p99": _told(age, "p99") if age else "-",
        "work on a frame, p50": f"{frame['p50']:.2f} ms",
        "frames a second, room for": ", ".join(
            f"{run['frames_per_second']} / {run['capacity_frames_per_second']}" for run in runs
        ),
        "skipped frames": ", ".join(str(run["skipped"]) for run in runs),
    }
    lead = f"{settings['source']}, mode {settings['mode']}, networks on {settings['runner']}"
    said = (
        band("warn", "Read with care", listed(document["warnings"]))
        if document["warnings"]
        else band("good", "Nothing disturbed the runs")
    )
    return join([paragraph("Latency profile", class_="kicker"), element("h1", title), paragraph(lead), said,
                 definitions(facts)])  # fmt: skip


def _told(row: dict[str, Any], name: str) -> str:
    value = row[name]
    return f"{value:.2f}" if value is not None else f"n<{least_samples(QUANTILES[name])}"


def _stage_table(stages: dict[str, dict[str, Any]]) -> Html:
    columns = [
        Column("stage"),
        *(Column(name, number=True) for name in ("p50", "p90", "p99", "p99.9", "max", "n", "spread %", "share %")),
    ]
    rows: list[list[Part]] = []
    for name, row in stages.items():
        depth = "\u2003" * name.count("/") + name.rpartition("/")[2]
        share = "" if name in NOT_WORK else f"{100 * share_of_frame(stages, name):.1f}"
        spread = "" if row["spread_percent"] is None else f"{row['spread_percent']:.1f}"
        told: list[Part] = [_told(row, key) for key in QUANTILES]
        rows.append([depth, *told, f"{row['max']:.2f}", str(row["n"]), spread, share])
    strong = frozenset(place for place, name in enumerate(stages) if name in (AGE, FRAME))
    return table("Milliseconds of each stage, over all runs", columns, [Group(rows, strong=strong)])


def _cold(cold: dict[str, Any]) -> Section:
    rows: list[list[Part]] = [
        [name, *(f"{row[key]:.1f}" for key in ("median", "min", "max"))] for name, row in cold["parts_ms"].items()
    ]
    columns = [Column("part"), *(Column(name, number=True) for name in ("median", "least", "most"))]
    caption = f"Milliseconds from the start of a process to its first decision, {cold['n']} starts"
    shown = table(caption, columns, [Group(rows, strong=frozenset({len(rows) - 1}))])
    return Section("cold", "Cold start", shown)


def _limits(limits: dict[str, Any]) -> list[Section]:
    machine = limits["machine"]
    words = (
        f"Measured in the same run with {machine['threads']:.0f} threads: {machine['triad_gb_s']:.1f} GB/s (triad), "
        f"{machine['read_gb_s']:.1f} GB/s (reading), {machine['sgemm_gflops']:.0f} Gflop/s (sgemm), "
        f"{machine['product_gflops']:.0f} Gflop/s (the same in ONNX Runtime). The higher of each counts. Below its "
        "floor in memory is what a cache served."
    )
    titles = ("MB", "Mflop", "floor", "p50", "gap", "times")
    columns = [Column("stage"), *(Column(name, number=True) for name in titles), Column("bound by")]
    rows: list[list[Part]] = [
        [row["stage"], f"{row['bytes'] / 1e6:.2f}", f"{row['flops'] / 1e6:.1f}", f"{row['floor_ms']:.3f}",
         _number(row["measured_ms"]), _number(row["gap_ms"]), _number(row["times_floor"], 1), row["bound"]]
        for row in limits["stages"]
    ]  # fmt: skip
    here = table(f"Milliseconds for a frame with {limits['faces']} faces", columns, [Group(rows)])
    return [
        Section("limits", "How far from the limit", join([paragraph(words), here])),
        Section("elsewhere", "Elsewhere, predicted", _elsewhere(limits)),
        Section("layers", "Slowest layers", join(_layers(name, net) for name, net in limits["networks"].items())),
    ]


def _elsewhere(limits: dict[str, Any]) -> Html:
    devices = limits["predicted"]
    columns = [Column("stage"), *(Column(name, number=True) for name in devices)]
    rows: list[list[Part]] = [
        [row["stage"], *(f"{device['stages_ms'][row['stage']]:.3f}" for device in devices.values())]
        for row in limits["stages"]
    ]
    rows.append(["all", *(f"{device['total_ms']:.3f}" for device in devices.values())])
    words = "Floors from data sheets for the same work: nothing of it was measured, and no device reaches them."
    shown = table("Milliseconds at the least", columns, [Group(rows, strong=frozenset({len(rows) - 1}))])
    sources = listed(f"{name}: {device['source']}" for name, device in devices.items())
    return join([band("warn", "Prediction, not a measurement"), paragraph(words), shown, sources])


def _layers(name: str, network: dict[str, Any]) -> Html:
    found = network["slowest_layers"]
    columns = [Column("layer"), Column("operator"), Column("output"),
               *(Column(title, number=True) for title in ("ms", "share %", "million MAC"))]  # fmt: skip
    rows: list[list[Part]] = [
        [row["name"], row["operator"], "x".join(map(str, row["output"])), f"{row['ms']:.3f}",
         f"{100 * row['share']:.1f}", f"{row['macs'] / 1e6:.1f}"]
        for row in found["top"]
    ]  # fmt: skip
    caption = (
        f"{name}: {network['macs'] / 1e6:.0f} million MAC, {network['weight_bytes'] / 1e6:.2f} MB of weights, "
        f"{found['layers']} layers, {found['sum_ms']:.2f} ms in all on the CPU"
    )
    return table(caption, columns, [Group(rows)])


def _setting(document: dict[str, Any]) -> Section:
    machine, own = document["environment"], document["overhead"]
    facts: dict[str, Part] = {
        "processor": f"{machine['cpu']}, {machine['processors']} usable",
        "memory": f"{machine['ram_gb']} GB",
        "GPU": machine["gpu"] or "none told",
        "load before": ", ".join(map(str, machine["load_average"])),
        "system": machine["os"],
        "Python": machine["python"],
        **{name: str(version) for name, version in machine["packages"].items()},
        "power mode": str(machine["board"]["power_mode"] or "not told"),
        "bundle": document["bundle"]["sha256"],
    }
    if own is not None:
        facts["what listening costs"] = overhead_to_text(own)
    settings: dict[str, Part] = {name: str(value) for name, value in document["settings"].items() if value is not None}
    silent = [name for name, value in document["resources"].items() if value is None]
    words = paragraph(f"Not told by this machine: {', '.join(silent)}." if silent else "All sensors told something.")
    return Section("setting", "Where and how", join([definitions(facts), definitions(settings), words]))


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
