"""Registers, spills and shared memory of every CUDA kernel for every architecture, as ptxas counts them, in a table.

Compiles all kernels with nvcc; needs no GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common import guarded, say

from immunogate.errors import UsageError
from immunogate.files import write_whole
from immunogate.kernels.compile import Usage, kernel_names, read_source, usage_of
from immunogate.kernels.compilers import Nvcc, find_compilers
from immunogate.kernels.cubins import ARCHITECTURES


def main(argv: Sequence[str] | None = None) -> int:
    """Compile and print the table as Markdown; 1 if a kernel spills."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--arch", nargs="+", default=list(ARCHITECTURES), help="architectures (default: all that ship)")
    parser.add_argument("--out", type=Path, help="write the table here as well")
    given = parser.parse_args(argv)
    nvcc = next((compiler for compiler in find_compilers() if isinstance(compiler, Nvcc)), None)
    if nvcc is None:
        raise UsageError("there is no nvcc", "Install the CUDA toolkit and put nvcc on the PATH")
    found = {architecture: resources(nvcc, architecture) for architecture in given.arch}
    text = table(found, nvcc.version)
    print(text, end="")
    if given.out:
        write_whole(given.out, lambda path: path.write_text(text, encoding="utf-8"))
    return 1 if any(usage.spilled for kernels in found.values() for usage in kernels.values()) else 0


def resources(nvcc: Nvcc, architecture: str) -> dict[str, Usage]:
    """What every kernel needs on one architecture, by name.

    Raises:
        CompileError: the compiler refused a source.
    """
    say(architecture)
    found: dict[str, Usage] = {}
    for name in kernel_names():
        source = read_source(name)
        found |= usage_of(nvcc.compile(name, source.text, dict(source.headers), architecture)[1])
    return found


def table(found: dict[str, dict[str, Usage]], compiler: str) -> str:
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
    sys.exit(guarded(main))
