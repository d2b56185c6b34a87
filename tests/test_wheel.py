"""What is packed: everything that runs, nothing else, from a checkout and from an sdist, links and all."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, requires, version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
OLDEST_SETUPTOOLS = 77
"""The first that reads an SPDX expression in project.license (PEP 639)."""

MOST_MEGABYTES = 400
OWN_MODELS = ("immunogate/models/default/", "immunogate/demo/perturbations.npz")
NOT_SOURCE = (
    ".git", ".venv", "out", "dist", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "cubin"
)  # fmt: skip


def _settings() -> dict[str, Any]:
    if sys.version_info < (3, 11):
        import tomli as tomllib
    else:
        import tomllib

    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return settings


def _build(kind: str, source: Path, out: Path) -> Path:
    """Build ``sdist`` or ``wheel``, with this environment's setuptools where it will do, else as ``build`` does it."""
    out.mkdir(exist_ok=True)
    try:
        at_hand = int(version("setuptools").partition(".")[0]) >= OLDEST_SETUPTOOLS
    except PackageNotFoundError:
        at_hand = False
    if at_hand:
        code = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
        command = [sys.executable, "-c", code, str(out)]
    elif importlib.util.find_spec("build"):
        command = [sys.executable, "-m", "build", f"--{kind}", "--outdir", str(out)]
    else:
        pytest.skip(f"neither setuptools {OLDEST_SETUPTOOLS} nor build is installed")
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    words = done.stdout + done.stderr
    if done.returncode and not at_hand and re.search("No matching distribution|connection|resolve", words):
        pytest.skip("build needs the package index, which can not be reached")
    assert done.returncode == 0, words
    (made,) = out.iterdir()
    return made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the checkout, its links kept."""
    folder = tmp_path_factory.mktemp("checkout") / "immunogate"
    shutil.copytree(ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("wheel", checkout, tmp_path_factory.mktemp("wheel") / "out")


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("sdist", checkout, tmp_path_factory.mktemp("sdist") / "out")


def _sources() -> set[str]:
    """Every module of the checkout by its path in a wheel."""
    package = ROOT / "src" / "immunogate"
    folders = [package, *(path for path in package.iterdir() if path.is_dir())]
    return {
        path.relative_to(package.parent).as_posix()
        for folder in folders
        for path in (folder.rglob("*.py") if folder != package else folder.glob("*.py"))
    }


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module(wheel: Path) -> None:
    assert {name for name in _names(wheel) if name.endswith(".py")} == _sources()


def test_the_wheel_holds_what_is_no_module_but_needed(wheel: Path) -> None:
    names = _names(wheel)
    assert {"immunogate/py.typed", "immunogate/calib/provisional.json"} <= names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert "immunogate = immunogate.cli:main" in archive.read(entry_points).decode()


def test_the_wheel_puts_one_package_into_site_packages(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in _names(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"immunogate"}


def test_the_wheel_holds_neither_tests_nor_data_nor_links(wheel: Path) -> None:
    rest = 0
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            assert "test" not in entry.filename
            assert (entry.external_attr >> 16) & 0o170000 != 0o120000, f"{entry.filename} is a link"
            if entry.filename.startswith(OWN_MODELS):
                continue
            assert not entry.filename.endswith((".npz", ".pt", ".pth", ".onnx", ".zip", ".gif", ".jpg", ".png"))
            rest += entry.file_size
    assert rest < 3 << 20


def test_the_wheel_holds_the_projects_own_models(wheel: Path) -> None:
    folder = ROOT / "src"
    models = [path for name in OWN_MODELS for path in folder.glob(f"{name}*") if path.is_file()]
    if not models:
        pytest.skip("no bundle ships with this checkout yet")
    with zipfile.ZipFile(wheel) as archive:
        for path in models:
            assert archive.read(path.relative_to(folder).as_posix()) == path.read_bytes()
    assert sum(path.stat().st_size for path in models) < 26 << 20


def test_the_wheel_holds_the_sources_of_the_kernels(wheel: Path) -> None:
    sources = {
        path.name for path in (ROOT / "kernels" / "cuda").iterdir() if path.suffix in (".cu", ".cuh", ".cpp", ".h")
    }
    held = {Path(name).name for name in _names(wheel) if name.startswith("immunogate/kernels/cuda/")}
    assert "select.cu" in sources
    assert held == sources


def test_compiled_kernels_are_carried_by_the_wheel_and_not_by_the_sdist(checkout: Path, tmp_path: Path) -> None:
    again = shutil.copytree(checkout, tmp_path / "checkout", symlinks=True)
    cubin = again / "kernels" / "cuda" / "cubin"
    cubin.mkdir()
    for name in ("manifest.json", "act.sm_90.cubin"):
        (cubin / name).write_text("made", encoding="utf-8")
    carried = {name for name in _names(_build("wheel", again, tmp_path / "wheel")) if "/cubin/" in name}
    assert carried == {f"immunogate/kernels/cuda/cubin/{name}" for name in ("manifest.json", "act.sm_90.cubin")}
    with tarfile.open(_build("sdist", again, tmp_path / "sdist")) as archive:
        assert not [name for name in archive.getnames() if "cubin/" in name]


def test_the_installed_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    code = (
        "import immunogate.runtime.pipeline as p, immunogate.calib.provisional as c; print(p.__file__); "
        "c.known_limits(); from immunogate.cli import main; main(['doctor'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(target)},
    )
    where, *report = done.stdout.splitlines()
    assert Path(where) == target / "immunogate" / "runtime" / "pipeline.py"
    assert report[-1] == "ready to run a gate on the CPU"


def test_a_wheel_from_the_sdist_is_the_same(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        assert not [member.name for member in archive.getmembers() if member.issym()]
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    again = _build("wheel", folder, tmp_path / "out")
    metadata = {name for name in _names(wheel) if ".dist-info/" in name}
    assert _names(again) == _names(wheel)
    with zipfile.ZipFile(again) as second, zipfile.ZipFile(wheel) as first:
        for name in _names(wheel) - metadata:
            assert second.read(name) == first.read(name), name


def test_every_package_is_listed() -> None:
    packages = _settings()["tool"]["setuptools"]["packages"]
    found = {Path(name).parent.as_posix().replace("/", ".") for name in _sources() if name.endswith("__init__.py")}
    assert found == set(packages)


def test_setuptools_is_asked_for_as_new_as_the_settings_need() -> None:
    (needed,) = _settings()["build-system"]["requires"]
    oldest = re.fullmatch(r"setuptools>=(\d+)[\d.]*", needed)
    assert oldest is not None
    assert int(oldest[1]) >= OLDEST_SETUPTOOLS


def test_a_gate_needs_few_megabytes() -> None:
    """What `pip install immunogate` brings, with all that these bring in turn."""
    core = [line for line in requires("immunogate") or [] if "extra ==" not in line]
    megabytes = {name: _bytes_of(name) / 1e6 for name in _closure(core)}
    assert {"numpy", "onnxruntime"} <= set(megabytes)
    assert not {"torch", "onnx", "matplotlib"} & set(megabytes)
    assert sum(megabytes.values()) < MOST_MEGABYTES, megabytes


def _closure(lines: list[str]) -> set[str]:
    """Names of the installed distributions that requirements lead to, extras left out."""
    seen: set[str] = set()
    todo = list(lines)
    while todo:
        line = todo.pop()
        name = re.split(r"[^A-Za-z0-9._-]", line.strip(), maxsplit=1)[0].lower()
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another Python or system
            continue
        if name not in seen:
            seen.add(name)
            todo += [need for need in found.requires or [] if "extra ==" not in need]
    return seen


def _bytes_of(name: str) -> int:
    files = distribution(name).files or []
    return sum(path.stat().st_size for path in (Path(str(file.locate())) for file in files) if path.is_file())
