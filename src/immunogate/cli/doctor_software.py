"""What ``immunogate doctor`` finds of CUDA, cuDNN, TensorRT and ONNX Runtime, and which runner auto would take."""

from __future__ import annotations

import json
import re
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path("/")
PARTS = {
    "CUDA toolkit": (r"cuda-toolkit-\d+-\d+", r"nvidia-cuda-runtime(-cu\d+)?"),
    "cuDNN": (r"libcudnn\d+(-cuda-\d+)?", r"nvidia-cudnn(-cu\d+)?"),
    "TensorRT": (r"libnvinfer\d+", r"tensorrt(-cu\d+)?(-bindings|_bindings)?"),
    "TensorRT-RTX": (r"libtensorrt-rtx.*|tensorrt-rtx-runtime", r"onnxruntime[-_]ep[-_]nv[-_]tensorrt[-_]rtx.*"),
}
"""For each its package in Debian's and Python's names, as patterns."""


def examine_software(root: Path = ROOT) -> dict[str, Any]:
    """The version of each of `PARTS` as the system and as Python's packages have it; None where it is not there."""
    system, python = _debian_packages(root), {one.name.lower(): one.version for one in distributions()}
    found: dict[str, Any] = {
        name: {"system": _first(system, debian), "python": _first(python, wheel)}
        for name, (debian, wheel) in PARTS.items()
    }
    found["CUDA toolkit"]["system"] = _toolkit(root) or found["CUDA toolkit"]["system"]
    return found


def software_to_lines(report: dict[str, Any]) -> list[str]:
    """One line a part, for people."""
    lines = []
    for name, places in report.items():
        there = [f"{version} ({place})" for place, version in places.items() if version]
        lines.append(f"{name:<24}{', '.join(there) or 'not found'}")
    return lines


def examine_runners() -> dict[str, Any]:
    """ONNX Runtime's packages and providers, what keeps each runner from being tried, and what auto would take."""
    from immunogate.runtime.runners.choose import KINDS, obstacles

    try:
        from immunogate.runtime.runners.providers import installed, providers, release
    except ImportError as error:
        return {"version": None, "packages": {}, "providers": [], "obstacles": {"cpu": str(error)}, "auto": None}
    found = {name: None if error is None else str(error) for name, error in obstacles().items()}
    free = [name for name, obstacle in found.items() if obstacle is None and KINDS[name].by_itself]
    return {
        "version": release(),
        "packages": installed(),
        "providers": providers(),
        "obstacles": found,
        "auto": free[0],
    }


def runners_to_lines(report: dict[str, Any]) -> list[str]:
    """One line a runner, and what auto would do, for people."""
    from immunogate.cli.common import grouped
    from immunogate.runtime.runners.choose import KINDS

    lines = [f"{'providers':<24}{', '.join(report['providers']) or 'none'}"]
    usable = [name for name, obstacle in report["obstacles"].items() if obstacle is None]
    lines += [f"{'--runner ' + name:<24}can be tried: {KINDS[name].what}" for name in usable]
    missing = {name: obstacle for name, obstacle in report["obstacles"].items() if obstacle is not None}
    for obstacle, names in grouped(missing).items():
        lines.append(f"{'--runner ' + ', '.join(names):<23} can not: {obstacle}")
    if report["auto"] and report["auto"] != "cpu":
        lines.append(f"{'--runner auto':<24}would take {report['auto']}, where that gives the CPU's numbers")
    elif report["auto"]:
        lines.append(f"{'--runner auto':<24}would take cpu: nothing that is preferred can be used, see above")
    return lines


def runner_warnings(report: dict[str, Any]) -> list[str]:
    """Packages that spoil each other."""
    twice = [name for name, found in report["packages"].items() if found]
    if len(twice) < 2:
        return []
    return [
        f"{' and '.join(twice)} are both installed and overwrite each other's files: pip uninstall {' '.join(twice)}, "
        "then install the one that you want"
    ]


def _debian_packages(root: Path) -> dict[str, str]:
    """Installed packages and versions, from dpkg's own file; empty elsewhere."""
    try:
        text = (root / "var/lib/dpkg/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    found = {}
    for paragraph in text.split("\n\n"):
        if "\nStatus: install ok installed" in paragraph:
            name = re.match(r"\s*Package: (\S+)", paragraph)
            version = re.search(r"^Version: (\S+)", paragraph, re.MULTILINE)
            if name and version:
                found[name[1]] = version[1]
    return found


def _toolkit(root: Path) -> str | None:
    """The version that the toolkit in /usr/local/cuda states of itself; some state it in the folder's name alone."""
    folder = root / "usr/local/cuda"
    try:
        stated = json.loads((folder / "version.json").read_text(encoding="utf-8"))
        return str(stated["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        named = re.fullmatch(r"cuda-(\d+(\.\d+)*)", folder.resolve().name)
        return named[1] if named else None


def _first(packages: dict[str, str], pattern: str) -> str | None:
    return next((version for name, version in sorted(packages.items()) if re.fullmatch(pattern, name)), None)
