"""Compiles every kernel for every architecture the toolkit knows, into kernels/cuda/cubin, and tables what they need.

A kernel that spills registers, or a file that does not compile, ends it with exit status 1 and nothing written but the
table. Needs no GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from immunogate.errors import ImmunogateError
from immunogate.files import write_whole
from immunogate.kernels import compile as kernels
from immunogate.kernels.compilers import Nvcc, nvcc_places
from immunogate.kernels.cubins import ARCHITECTURES, write_prebuilt

Needs = dict[str, dict[str, kernels.Usage]]
"""What each kernel needs, by architecture and name."""


def main(words: list[str] | None = None) -> int:
    """Compile for the architectures that are named, or for all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "architectures", nargs="*", metavar="ARCHITECTURE", help="such as sm_90 (default: all that ship)"
    )
    parser.add_argument("--table", type=Path, help="write the table, Markdown, here as well")
    given = parser.parse_args(words)
    place = next(nvcc_places(), None)
    if place is None:
        print("nvcc was not found: install the CUDA toolkit, or set CUDA_HOME to its folder", file=sys.stderr)
        return 2
    try:
        return make(Nvcc(place), given.architectures or list(ARCHITECTURES), given.table)
    except ImmunogateError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def make(nvcc: Nvcc, wanted: list[str], out: Path | None) -> int:
    """Compile, table, write."""
    known = nvcc.architectures()
    for name in (name for name in wanted if name not in known):
        print(f"{nvcc.version} does not know {name}: left out")
    needs: Needs = {name: {} for name in wanted if name in known}
    made = {}
    for name in kernels.kernel_names():
        print(f"{name}.cu ...", file=sys.stderr, flush=True)
        source = kernels.read_source(name)
        codes = {}
        for architecture, found in needs.items():
            compiled = kernels.compiled_by(nvcc, source, architecture)
            codes[architecture] = compiled.code
            found |= kernels.usage_of(compiled.log)
        made[name] = (source.sha256(), codes)
    text = table(needs, nvcc.version)
    print(text)
    if out:
        write_whole(out, lambda path: path.write_text(text, encoding="utf-8"))
    spilling = [f"{kernel}@{name}" for name, found in needs.items() for kernel in found if found[kernel].spilled]
    if spilling:
        print(f"registers are spilled in {', '.join(spilling)}", file=sys.stderr)
        return 1
    write_prebuilt(kernels.SOURCES / "cubin", nvcc.version, made)
    size = sum(len(code) for _, codes in made.values() for code in codes.values())
    print(f"{sum(len(codes) for _, codes in made.values())} files, {size / 1e6:.1f} MB, nothing spilled")
    return 0


def table(found: Needs, compiler: str) -> str:
    """Markdown: a row for each kernel, registers in a column for each architecture."""
    architectures = list(found)
    lines = [
        f"Registers a thread by {compiler}, and spilled bytes where there are any; static shared memory in bytes.",
        "",
        f"| kernel | shared | {' | '.join(architectures)} |",
        f"|---|---|{'---|' * len(architectures)}",
    ]
    for kernel in sorted(found[architectures[0]]):
        usages = [found[architecture][kernel] for architecture in architectures]
        cells = [f"{usage.registers}" + (f" + {usage.spilled} spilled" if usage.spilled else "") for usage in usages]
        lines.append(f"| {kernel} | {max(usage.shared for usage in usages)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
