"""Builds PyCUDA's one pinned source package and installs it into this environment, with or without a driver here.

Its wheel needs libcuda.so.1 when it is used and not when it is built. Where no driver is installed a stub takes its
place: it is left in ``<environment>/cuda-stub``, where only tests look for it, and only where there is no real one.
With ``--keep FOLDER`` the wheels of PyCUDA and of what it needs are put there as well, for a machine without a network.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.util import find_spec
from pathlib import Path

from cuda_stub import driver_names, make_stub

HERE = Path(__file__).parent
STUB = Path(sys.prefix) / "cuda-stub"
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
PINS = HERE.parent / "constraints.txt"
TO_BUILD = ["numpy", "setuptools", "wheel"]


NEEDED = ["pytools", "mako", "platformdirs", "siphash24", "typing-extensions", "markupsafe"]
"""What PyCUDA imports, and what that does."""


def main(words: list[str] | None = None) -> int:
    """Build, install, try; one line a step. Exit status 2 where something is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--pins", type=Path, default=PINS, help="constraints for pip (default constraints.txt)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="put the wheels there too")
    given = parser.parse_args(words)
    keep: Path | None = given.keep
    pinned = ["-c", str(given.pins)]
    toolkit = find_toolkit()
    if toolkit is None:
        return _missing("nvcc was not found: install the CUDA toolkit, or set CUDA_HOME to its folder")
    for tool in ("gcc", "g++", "nm"):
        if subprocess.run(["sh", "-c", f"command -v {tool}"], capture_output=True, check=False).returncode:
            return _missing(f"{tool} was not found: install the build tools of your system (build-essential)")
    subprocess.run([*PIP, "install", *pinned, *TO_BUILD], check=True)
    with tempfile.TemporaryDirectory(prefix="pycuda-") as folder:
        wheel = build(toolkit, Path(folder))
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy2(wheel, keep)
            subprocess.run([*PIP, "download", "--no-deps", *pinned, "-d", str(keep), *NEEDED], check=True)
            print(f"wheels are in {keep}: {', '.join(sorted(path.name for path in keep.glob('*.whl')))}")
        subprocess.run([*PIP, "uninstall", "-y", "pycuda"], check=True, stderr=subprocess.DEVNULL)
        subprocess.run([*PIP, "install", *pinned, str(wheel)], check=True)
    extension = installed_extension()
    print(f"PyCUDA installed: {extension}")
    if _has_driver():
        print("a driver is installed here: no stub was made")
        return 0
    names = driver_names(extension)
    print(f"no driver here: a stub with {len(names)} functions for tests is in {make_stub(names, STUB).parent}")
    return _try_over_stub()


def find_toolkit() -> Path | None:
    """The folder of the CUDA toolkit: CUDA_HOME, CUDA_PATH, the nvcc on PATH, /usr/local/cuda."""
    named = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    asked = subprocess.run(["sh", "-c", "nvcc --dryrun -x cu /dev/null"], capture_output=True, text=True, check=False)
    found = re.search(r"^#\$ TOP=(.+)$", asked.stderr, re.MULTILINE)  # also right where nvcc is a link or a script
    places = [*named, *([Path(found[1])] if found else []), Path("/usr/local/cuda")]
    return next((place.resolve() for place in places if (place / "bin" / "nvcc").is_file()), None)


def build(toolkit: Path, folder: Path) -> Path:
    """The wheel of PyCUDA, built in a folder from the pinned source package."""
    get = [*PIP, "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    subprocess.run([*get, "-r", str(HERE / "pycuda.txt"), "-d", str(folder)], check=True)
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    source = folder / packed.name.removesuffix(".tar.gz")
    empty = make_stub([], folder / "empty")
    flags = ["--no-cuda-enable-curand", "--cxxflags=-g0", f"--cudadrv-lib-dir={empty.parent}"]
    subprocess.run([sys.executable, "configure.py", f"--cuda-root={toolkit}", *flags], cwd=source, check=True)
    words = {
        "PATH": f"{toolkit / 'bin'}:{os.environ['PATH']}",
        # The stub that it is linked against is nearly empty: without this flag the linker would not note the need.
        "LDFLAGS": f"{os.environ.get('LDFLAGS', '')} -s -Wl,--no-as-needed",
        "SOURCE_DATE_EPOCH": "1577836800",  # wheels hold the times of their files
    }
    subprocess.run(
        [*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), "."],
        cwd=source, env=os.environ | words, check=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    return wheel


def installed_extension() -> Path:
    """PyCUDA's compiled module, found without importing it."""
    found = find_spec("pycuda")
    assert found is not None
    assert found.submodule_search_locations is not None
    (extension,) = Path(next(iter(found.submodule_search_locations))).glob("_driver*.so")
    return extension


def _has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _try_over_stub() -> int:
    code = "import pycuda.driver as d\ntry:\n    d.init()\nexcept d.Error as error:\n    print('over the stub:', error)"
    environment = os.environ | {"LD_LIBRARY_PATH": str(STUB)}
    return subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode


def _missing(what: str) -> int:
    print(what, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
