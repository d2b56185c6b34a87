"""Runs every benchmark and writes ``benchmarks/results``: a JSON document each and a table of targets against measures.

With names, only those run, and the table is drawn from all documents that are there. What is slow to make (eigenbasis,
bundle) is made first. The limits that ship with the package are no benchmark: see ``provisional.py``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import HEADING, RESULTS, ROOT, Target, guarded

from immunogate.files import write_whole
from immunogate.kernels.device import probe

HERE = Path(__file__).resolve().parent
PREPARE = "assets"
BENCHMARKS = {
    "bench_purify": "bench_purify",
    "bench_clones": "bench_clones",
    "bench_host": "bench_host",
    "bench_basis": "bench_basis",
    "bench_pipeline": "bench_pipeline",
    "bench_listening": "bench_listening",
    "bench_alignment": "bench_alignment",
    "bench_detector": "bench_detector",
    "bench_recogniser": "bench_recogniser",
    "bench_default_bundle": "bench_default_bundle",
    "bench_precision": "bench_precision",
    "bench_networks": "bench_networks",
    "bench_training": "bench_training",
    "bench_audit": "bench_audit",
    "audit_kills": "audit_kills",
    "bench_capture": "bench_capture",
    "bench_outages": "bench_outages",
    "verification": "verification_mobilefacenet_lfw_dev",
    "bench_gpu_kernels": "bench_gpu_kernels",
    "bench_gpu_path": "bench_gpu_path",
}
"""Scripts and the documents they write."""

ON_A_GPU = ("bench_gpu_kernels", "bench_gpu_path")
"""Those that need one; left out where there is none, unless they are named."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run, each in a process of its own, then draw up the table; 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (default all)")
    parser.add_argument("--quick", action="store_true", help="small ones, for trying out")
    parser.add_argument("--out", type=Path, help="folder (default benchmarks/results, with --quick out/benchmarks)")
    arguments = parser.parse_args(argv)
    unknown = sorted(set(arguments.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; known are {', '.join(BENCHMARKS)}")
    out: Path = (arguments.out or (ROOT / "out" / "benchmarks" / "quick" if arguments.quick else RESULTS)).resolve()
    out.mkdir(parents=True, exist_ok=True)
    failed = []
    left_out = () if probe().usable else ON_A_GPU
    scripts = arguments.names or [name for name in BENCHMARKS if name not in left_out]
    if left_out and not arguments.names:
        print(f"left out, for {probe().problem}: {', '.join(left_out)}", file=sys.stderr)
    for number, script in enumerate((PREPARE, *scripts)):
        print(f"[{number}/{len(scripts)}] {script} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        words = [sys.executable, str(HERE / f"{script}.py")]
        if script != PREPARE:
            words += ["--out", str(out / f"{BENCHMARKS[script]}.json")] + ["--quick"] * arguments.quick
        if subprocess.run(words, cwd=ROOT, check=False).returncode:
            failed.append(script)
        print(f"[{number}/{len(scripts)}] {script}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*.json"))]
    text = readme(documents)
    write_whole(out / "README.md", lambda path: path.write_text(text, encoding="utf-8"))
    print(f"\n{out / 'README.md'}" + (f"; failed: {', '.join(failed)}" if failed else ""), file=sys.stderr)
    return 1 if failed else 0


def readme(documents: list[dict[str, Any]]) -> str:
    """Targets against measures and where they were measured, as Markdown.

    Args:
        documents: as `common.finish` writes them.
    """
    lines = [
        "# Results",
        "",
        "Written by `python benchmarks/run_all.py`; each figure with its spread is in the JSON files.",
        "",
    ]
    if any(document["quick"] for document in documents):
        lines += ["**Some were run with --quick: not for quoting.**", ""]
    lines += [HEADING]
    said = Counter(entry["what"] for document in documents for entry in document["targets"])
    for document in documents:
        for entry in document["targets"]:
            what = entry["what"] if said[entry["what"]] == 1 else f"{document['benchmark']}: {entry['what']}"
            lines.append(
                Target(**{**{name: value for name, value in entry.items() if name != "met"}, "what": what}).row()
            )
    lines += ["", "| benchmark | date | device | load before | versions | commit |", "|---|---|---|---|---|---|"]
    lines += [_where(document["benchmark"], document["environment"]) for document in documents]
    return "\n".join(lines) + "\n"


def _where(name: str, found: dict[str, Any]) -> str:
    gpu = f"{found['gpu']['name']} through {found['gpu']['binding']}; " if "gpu" in found else ""
    device = f"{gpu}{found['cpu']}, {found['cores_usable']} cores, {found['ram_gib']} GiB, {found['os']}"
    versions = ", ".join(f"{package} {number}" for package, number in found["packages"].items())
    commit = found["git_commit"][:10] + ("" if found["git_clean"] else " with changes")
    load = found["load_average_before"][0]
    blas = ", ".join(sorted({f"{pool['internal_api']} {pool['version']}" for pool in found["blas"]}))
    cells = (name, found["date"][:16], device, load, f"Python {found['python']}, {versions}; {blas}", commit)
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(guarded(main))
