"""What this machine offers the kernels: driver, devices, bindings, compilers, machine code; compiles what is missing.

Exit status 1 where a device can not be used, or a kernel has no machine code for it.
"""

from __future__ import annotations

import argparse
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from immunogate.errors import ImmunogateError
from immunogate.kernels import compile as compiling
from immunogate.kernels.compilers import find_compilers
from immunogate.kernels.device import binding_versions, open_device, require_device

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "pytest", "torch", "cuda-bindings", "cupy-cuda13x")


def main(words: list[str] | None = None) -> int:
    """Say it in a few lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--compile", action="store_true", help="get machine code of every kernel for the first device")
    given = parser.parse_args(words)
    try:
        return _compile() if given.compile else _state()
    except ImmunogateError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _state() -> int:
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print(", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    print(", ".join(f"{name} {found or 'not installed'}" for name, found in binding_versions().items()))
    print(", ".join(compiler.version for compiler in find_compilers()) or "no compiler for kernels")
    state = require_device()
    print(f"CUDA {state.version_text()}: {', '.join(state.devices)}")
    for name, found in binding_versions().items():
        if found:
            with open_device(binding=name, strict=True) as device:
                free = device.free_bytes() / 2**30
                print(f"{name}: {device.architecture}, {device.processors} processors, {free:.1f} GiB free")
    return 0


def _compile() -> int:
    major, minor = require_device().capabilities[0]
    for name in compiling.kernel_names():
        found = compiling.cubin_for(name, f"sm_{major}{minor}")
        print(f"{name}: {len(found.code)} bytes from the {found.origin}")
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    sys.exit(main())
