"""What `robustness.py` measured, as promises and as tables."""

from __future__ import annotations

from typing import Any

from common import Target
from verification import OWN, SHARED


def targets(measured: dict[str, Any], name: str) -> list[Target]:
    """What is promised of one purifier, at the threshold of the undefended pairs as the promise says."""
    rates = {row: found[name]["rate"] for row, found in measured["tar"][SHARED].items() if name in found}
    bare = measured["tar"][SHARED]["clean"]["undefended"]["rate"]
    rows = {row: value for row, value in rates.items() if "template" not in row and "(" not in row}
    by_start = {
        "FGSM": ("FGSM 0.04 on the bare recogniser", 0.78),
        "PGD-40": ("PGD-40 at 8/255 on the bare recogniser", 0.65),
    }
    found = [Target(f"{name}: clean TAR against undefended", ">=", 0.95, rates["clean"] / bare, "x")]
    for start, (words, limit) in by_start.items():
        value = next(value for row, value in rows.items() if row.startswith(start) and "bare" in row)
        found.append(Target(f"{name}: TAR, {words}", ">=", limit, value, "TAR"))
    for level, limit in ((2, 0.60), (4, 0.25)):
        value = next(value for row, value in rows.items() if f" {level}/255, adaptive" in row)
        found.append(Target(f"{name}: TAR, adaptive {level}/255", ">=", limit, value, "TAR"))
    return found


def head(measured: dict[str, Any], before: dict[str, Any]) -> str:
    """What the tables show."""
    asked = measured["setting"]
    return (
        f"# Robustness\n\nMade by `python benchmarks/robustness.py` on {before['date'][:10]} (torch "
        f"{before['packages']['torch']}, {before['cpu']}).\n"
        f"TAR at FMR {asked['fmr']:g} of {asked['genuine_pairs']} genuine pairs with 95 % Wilson intervals; "
        f"thresholds from {asked['impostor_pairs']:,} clean impostor pairs of other people.\n"
        f"Recogniser: {asked['recogniser']}.\nAdaptive attacks: {asked['adaptive']}."
    )


def table(measured: dict[str, Any]) -> str:
    """Markdown: rates at both thresholds, then the antibodies."""
    parts = [_rates(measured, words) for words in (SHARED, OWN)]
    lines = [
        "## Antibodies",
        "",
        "| purifier | chosen | different faces | two attacks on one face | clean and attacked |",
    ]
    lines.append("|---" * 5 + "|")
    for name, found in measured["antibodies"].items():
        cells = (found[key] for key in ("chosen", "different_faces", "two_attacks_on_one_face", "clean_and_attacked"))
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    lines += ["", "| purifier, memory left out | mean change of p | max change of p | mean cosine | min cosine |"]
    lines.append("|---" * 5 + "|")
    for name, found in measured["antibodies"].items():
        lines.append(f"| {name} | {' | '.join(str(value) for value in found['memory_left_out'].values())} |")
    return "\n\n".join([*parts, "\n".join(lines)])


def _rates(measured: dict[str, Any], words: str) -> str:
    rows, names = measured["tar"][words], list(measured["tar"][words]["clean"])
    lines = [f"## TAR, {words}", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row, found in rows.items():
        cells = (
            f"{found[n]['rate']:.3f} ({found[n]['low']:.3f}..{found[n]['high']:.3f})" if n in found else ""
            for n in names
        )
        lines.append(f"| {row} | {' | '.join(cells)} |")
    limits, others = measured["thresholds"][words], measured["fmr_of_the_tested_people"][words]
    lines.append(f"| *threshold* | {' | '.join(f'{limits[n]:.4f}' for n in names)} |")
    lines.append(f"| *FMR of the tested people* | {' | '.join(format(others[n]['rate'], '.5f') for n in names)} |")
    return "\n".join(lines)
