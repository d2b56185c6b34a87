"""Compiles every kernel for every architecture the toolkit knows, into kernels/cuda/cubin, and tables what they need.

A kernel that spills registers, or a file that does not compile, ends it with exit status 1 and nothing written.
"""

from __future__ import annotations

import sys

from immunogate.errors import ImmunogateError
from immunogate.kernels import compile as kernels
from immunogate.kernels.compilers import Nvcc, nvcc_places
from immunogate.kernels.cubins import ARCHITECTURES, write_prebuilt


def main(wanted: list[str]) -> int:
    """Compile for the architectures that are named, or for all."""
    place = next(nvcc_places(), None)
    if place is None:
        print("nvcc was not found: install the CUDA toolkit, or set CUDA_HOME to its folder", file=sys.stderr)
        return 2
    try:
        return make(Nvcc(place), wanted or list(ARCHITECTURES))
    except ImmunogateError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def make(nvcc: Nvcc, wanted: list[str]) -> int:
    """Compile, table, write."""
    known = nvcc.architectures()
    for name in (name for name in wanted if name not in known):
        print(f"{nvcc.version} does not know {name}: left out")
    wanted = [name for name in wanted if name in known]
    made, spilling = {}, []
    for name in kernels.kernel_names():
        source = kernels.read_source(name)
        codes, used = {}, {}
        for architecture in wanted:
            compiled = kernels.compiled_by(nvcc, source, architecture)
            codes[architecture] = compiled.code
            used[architecture] = kernels.usage_of(compiled.log)
        made[name] = (source.sha256(), codes)
        spilling += show(name, used)
    if spilling:
        print(f"registers are spilled in {', '.join(spilling)}", file=sys.stderr)
        return 1
    write_prebuilt(kernels.SOURCES / "cubin", nvcc.version, made)
    size = sum(len(code) for _, codes in made.values() for code in codes.values())
    print(f"{sum(len(codes) for _, codes in made.values())} files, {size / 1e6:.1f} MB, nothing spilled")
    return 0


def show(name: str, used: dict[str, dict[str, kernels.Usage]]) -> list[str]:
    """One line a kernel; those that spill are returned as kernel@architecture."""
    spilling = []
    for kernel in next(iter(used.values()), {}):
        each = {architecture: usage[kernel] for architecture, usage in used.items()}
        spilling += [f"{kernel}@{architecture}" for architecture, usage in each.items() if usage.spilled]
        registers = " ".join(f"{architecture[3:]}:{usage.registers}" for architecture, usage in each.items())
        shared = max(usage.shared for usage in each.values())
        print(f"{name + '.cu':<14}{kernel:<22}registers {registers}, shared memory {shared} bytes", flush=True)
    return spilling


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
