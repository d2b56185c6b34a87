"""Makes a libcuda.so.1 without a driver behind it: a program that needs one can then be imported, and meets an error.

Every call says "not initialized" and starting the driver says "no device". The few calls that describe an error or a
version answer, so that what a program shows is readable. It is for tests on machines without a driver only.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

NO_DEVICE, NOT_INITIALIZED, INVALID_VALUE = 100, 3, 1
"""CUresult values, from cuda.h."""

DRIVER_VERSION = 13000
"""What the stub says that it is: CUDA 13.0."""

WRITTEN_OUT = f"""
static const char *name_of(int error) {{
    return error == 0 ? "CUDA_SUCCESS" : error == {NO_DEVICE} ? "CUDA_ERROR_NO_DEVICE" : "CUDA_ERROR_NOT_INITIALIZED";
}}
static const char *text_of(int error) {{
    return error == 0 ? "no error" : error == {NO_DEVICE} ? "no CUDA-capable device is detected (stub driver)"
                                                   : "initialization error (stub driver)";
}}
int cuGetErrorName(int error, const char **text) {{ *text = name_of(error); return 0; }}
int cuGetErrorString(int error, const char **text) {{ *text = text_of(error); return 0; }}
int cuDriverGetVersion(int *version) {{
    if (!version) return {INVALID_VALUE};
    *version = {DRIVER_VERSION};
    return 0;
}}
int cuInit(unsigned flags) {{ (void)flags; return {NO_DEVICE}; }}
int immunogate_stub_driver(void) {{ return 1; }}
"""
OWN_NAMES = frozenset(re.findall(r"^int (cu\w+)", WRITTEN_OUT, re.MULTILINE))
ALWAYS = ("cuDeviceGetCount",)
"""Asked for by a look at the driver, whichever program the stub is made for."""


def driver_names(extension: Path) -> list[str]:
    """The driver's functions that a compiled extension expects to find, sorted.

    Raises:
        subprocess.CalledProcessError: it is no shared library.
    """
    command = ["nm", "--dynamic", "--undefined-only", str(extension)]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sorted(set(re.findall(r" U (cu[A-Z]\w*)", listed)))


def stub_source(names: list[str]) -> str:
    """The C source of a driver with these functions."""
    rest = sorted({*names, *ALWAYS} - OWN_NAMES)
    return WRITTEN_OUT + "".join(f"int {name}() {{ return {NOT_INITIALIZED}; }}\n" for name in rest)


def make_stub(names: list[str], folder: Path) -> Path:
    """Compile the stub into a folder as libcuda.so.1, with a libcuda.so for linkers beside it.

    Raises:
        subprocess.CalledProcessError: the compiler failed; what it said is on stderr.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made, link = folder / "libcuda.so.1", folder / "libcuda.so"
    flags = ["-shared", "-fPIC", "-O1", "-w", "-std=gnu11", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["gcc", *flags, "-x", "c", "-", "-o", str(made)], input=stub_source(names), text=True, check=True)
    link.unlink(missing_ok=True)
    link.symlink_to(made.name)
    return made
