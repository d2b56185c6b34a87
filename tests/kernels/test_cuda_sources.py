"""Every kernel compiles without spilling registers, and asks for no more than a block may have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from immunogate.kernels.compile import SOURCES, kernel_names, read_source, usage_of
from immunogate.kernels.compilers import Nvcc, find_compilers
from immunogate.kernels.cubins import ARCHITECTURES

BY_DEFAULT = ("sm_75", "sm_90")
LARGEST_DYNAMIC = 8 * 4096
STATIC_AND_DYNAMIC = 48 << 10
"""Bytes of shared memory that every architecture gives a block without being asked."""

REGISTERS = 64 << 10


@pytest.fixture(scope="module")
def nvcc() -> Nvcc:
    for compiler in find_compilers():
        if isinstance(compiler, Nvcc):
            return compiler
    pytest.skip("there is no nvcc")


def kernels_in(text: str) -> set[str]:
    """Names of the entry functions, those made by macros too."""
    plain = re.findall(r'extern "C" __global__ void __launch_bounds__\(\d+\)\n(\w+)\(', text)
    made = re.findall(r"^(?:PROJECT|ACT_CHOSEN|ACT_DENSE)\((\w+),", text, re.MULTILINE)
    return set(plain + made)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", BY_DEFAULT)
@pytest.mark.parametrize("name", kernel_names())
def test_compiles_without_spills(nvcc: Nvcc, name: str, architecture: str) -> None:
    if architecture not in nvcc.architectures():
        pytest.skip(f"{nvcc.version} does not know {architecture}")
    source = read_source(name)
    _, said = nvcc.compile(name, source.text, dict(source.headers), architecture)
    used = usage_of(said)
    assert set(used) == kernels_in(source.text)
    for kernel, usage in used.items():
        assert usage.spilled == 0, f"{kernel} for {architecture} spills {usage.spilled} bytes"
        assert usage.shared + (LARGEST_DYNAMIC if kernel == "select_clones" else 0) <= STATIC_AND_DYNAMIC
        threads = int(re.search(r"__launch_bounds__\((\d+)\)", source.text)[1])  # type: ignore[index]
        assert usage.registers * threads <= REGISTERS
    assert "warning" not in said


def test_the_default_architectures_are_of_those_that_ship() -> None:
    assert set(BY_DEFAULT) <= set(ARCHITECTURES)


def test_kernels_of_the_tests_on_a_host_are_all_there_are() -> None:
    """A new kernel is not forgotten in cuda_on_host.cpp."""
    text = (Path(__file__).parent / "cuda_on_host.cpp").read_text(encoding="utf-8")
    listed = set(re.findall(r"KERNEL\((\w+)\)", text)) - {"NAME"}
    assert listed == set().union(*(kernels_in(path.read_text(encoding="utf-8")) for path in SOURCES.glob("*.cu")))


def test_headers_need_nothing_but_each_other() -> None:
    """NVRTC has no system headers; only what is for g++ alone may include any."""
    for path in SOURCES.iterdir():
        if path.suffix in (".cu", ".cuh"):
            assert not re.search(r"#\s*include\s*<", path.read_text(encoding="utf-8")), path.name
