"""PyCUDA and cuda-core, the real packages, on a fake driver (fake_driver.cpp) that runs the real kernels on the host.

What a binding is called with, and in which order, is shown here; what a GPU does with it is not. A process of its own
for each: a driver is found once, by the loader.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from cuda_stub import driver_names, stub_source

from immunogate.kernels.compilers import find_compilers
from immunogate.kernels.device import binding_versions
from immunogate.kernels.host_build import HostBuildError, find_compiler

ROOT = Path(__file__).resolve().parents[3]
INSTALLED = [name for name, version in binding_versions().items() if version]
FLAGS = ("-std=c++17", "-O2", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-U_FORTIFY_SOURCE", "-w")
INCLUDED = ("kernels/cuda", "benchmarks/cuda", "tests/kernels")

pytestmark = pytest.mark.skipif(not INSTALLED, reason="neither PyCUDA nor cuda-core is installed")


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the fake libcuda.so.1; what else PyCUDA links against says "not initialized"."""
    try:
        compiler = find_compiler()
    except HostBuildError as error:
        pytest.skip(str(error))
    if not find_compilers():
        pytest.skip("neither nvcc nor libnvrtc is installed")
    folder = tmp_path_factory.mktemp("fake-driver")
    rest = folder / "rest.c"
    rest.write_text(weak(names_of_pycuda()), encoding="utf-8")
    subprocess.run(["gcc", "-fPIC", "-w", "-c", str(rest), "-o", str(folder / "rest.o")], check=True)
    words = [compiler, *FLAGS, "-shared", "-fPIC", "-fvisibility=hidden", "-Wl,-soname,libcuda.so.1"]
    words += [f"-I{ROOT / place}" for place in INCLUDED]
    words += ["-o", str(folder / "libcuda.so.1"), str(Path(__file__).with_name("fake_driver.cpp")), "-ldl"]
    done = subprocess.run([*words, str(folder / "rest.o")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def names_of_pycuda() -> list[str]:
    found = find_spec("pycuda")
    places = found.submodule_search_locations if found else None
    extensions = [path for place in places or [] for path in Path(place).glob("_driver*.so")]
    return driver_names(extensions[0]) if extensions else []


def weak(names: list[str]) -> str:
    """The stub's functions, each giving way to one of the fake driver's."""
    lines = [line for line in stub_source(names).splitlines() if line.startswith("int cu") and "()" in line]
    return "\n".join(f"__attribute__((weak)) {line}" for line in lines)


def run(folder: Path, *words: str) -> str:
    places = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": os.pathsep.join(places)}
    environment["IMMUNOGATE_REQUIRE_GPU"] = "1"
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-3000:]
    return said


def test_the_tests_of_the_device_pass(fake_driver: Path) -> None:
    """Memory, streams, events, capture, failed capture, modules, opening twice; strict, so that leaks are found."""
    said = run(fake_driver, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/gpu/test_device.py")
    assert " passed" in said
    assert "skipped" not in said


@pytest.mark.parametrize("binding", INSTALLED)
def test_every_kernel_is_its_definition(fake_driver: Path, binding: str) -> None:
    assert "all agree" in run(fake_driver, "tools/sanitize_kernels.py", "--rounds", "1", "--binding", binding)
