"""Measured quality of the default bundle's parts as Markdown, for `immunogate export --notes` and its model card.

    python benchmarks/quality_notes.py > notes.md

Takes the promises and measures of the committed results; what was not measured is not mentioned.
"""

from __future__ import annotations

import json
import sys

from common import HEADING, RESULTS, Target

PARTS = {
    "bench_detector": "Detector, against YuNet on people and clips kept back",
    "bench_recogniser": "Recogniser, on people kept back",
    "robustness_default": "Purifier in front of the recogniser, on people kept back",
}


def main() -> int:
    """Print them."""
    lines = ["## Measured quality", ""]
    lines.append(
        "Trained on 2,135 photos of 922 people of Labeled Faces in the Wild, grey; nobody below was among them."
    )
    for name, title in PARTS.items():
        path = RESULTS / f"{name}.json"
        if not path.is_file():
            print(f"not measured: {path.name}", file=sys.stderr)
            continue
        document = json.loads(path.read_text(encoding="utf-8"))
        lines += ["", f"### {title}", "", HEADING]
        for entry in document["targets"]:
            lines.append(Target(**{key: value for key, value in entry.items() if key != "met"}).row())
        where = document["environment"]
        lines += ["", f"Measured on {where['date'][:10]}, {where['cpu']}, {where['cores_usable']} cores."]
    lines += [
        "",
        "### Limits",
        "",
        "For research and demonstration. The photos are of public figures around 2005, mostly men, mostly frontal and",
        "well lit; error rates for other people differ and were not measured. Calibrate on your own people.",
        "",
    ]
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
