"""``immunogate doctor``: what this machine has and what is missing."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from immunogate.cli.common import add_json, print_json
from immunogate.cli.doctor_gpu import examine_gpu, gpu_is_usable, gpu_to_lines
from immunogate.cli.doctor_machine import examine_machine, machine_to_lines, machine_warnings
from immunogate.cli.doctor_nvml import examine_nvml, nvml_to_lines, nvml_warnings
from immunogate.cli.doctor_software import (
    examine_runners,
    examine_software,
    runner_warnings,
    runners_to_lines,
    software_to_lines,
)
from immunogate.cli.models import bundle_to_text, describe_bundle
from immunogate.errors import UsageError
from immunogate.places import default_gallery

REQUIRED = ("numpy", "opencv-python-headless", "onnxruntime", "threadpoolctl", "tqdm")
OPTIONAL = {"torch": "export", "onnx": "export", "onnxscript": "export", "matplotlib": "demo", "scikit-image": "demo"}


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check this machine",
        description="Say what this machine has, what is missing and what brings it; what slows it down, and which "
        "runner auto would take. Nothing is changed.",
    )
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look and report; exit status 1 where something needed is missing."""
    report = examine()
    if arguments.json:
        print_json(report)
    else:
        print(to_text(report))
    return 0 if report["ready"] else 1


def examine() -> dict[str, Any]:
    """Versions of everything that matters here, None where it is missing."""
    import cv2

    bundle = describe_bundle()
    runners = examine_runners()
    found = {name: _version(name) for name in (*REQUIRED, *OPTIONAL)}
    found["opencv-python-headless"] = cv2.__version__  # also where OpenCV came from the system and not from a wheel
    found["onnxruntime"] = runners["version"]  # also where another distribution brought it
    build = cv2.getBuildInformation()
    machine, devices = examine_machine(), examine_nvml()
    video = {name: _has(build, name) for name in ("FFMPEG", "GStreamer", "v4l/v4l2")}
    warnings = [*machine_warnings(machine), *nvml_warnings(devices), *runner_warnings(runners)]
    if machine["l4t"] and not video["GStreamer"]:
        warnings.append("this OpenCV has no GStreamer, which csi:// needs, and hides the system's: see docs/jetson.md")
    return {
        "ready": all(found[name] for name in REQUIRED) and bundle["state"] != "damaged",
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "packages": found,
        "bundle": bundle,
        "gallery": _gallery(),
        "gpu": examine_gpu(),
        "board": machine,
        "gpu_clocks": devices,
        "software": examine_software(),
        "runners": runners,
        "video": video,
        "warnings": warnings,
    }


def to_text(report: dict[str, Any]) -> str:
    """The report for a person, with the remedy beside what is missing."""
    lines = [f"Python {report['python']} on {report['machine']}, {report['processors']} processors", ""]
    for name, found in report["packages"].items():
        remedy = (
            f"missing; needed for {OPTIONAL[name]}: pip install 'immunogate[{OPTIONAL[name]}]'"
            if name in OPTIONAL
            else "MISSING"
        )
        lines.append(f"{name:<24}{found or remedy}")
    video = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in report["video"].items())
    lines += [
        "",
        f"OpenCV reads video by: {video}",
        bundle_to_text(report["bundle"]),
        f"gallery   {report['gallery'] or 'none of your own yet: immunogate enroll FOLDER'}",
        "",
        *gpu_to_lines(report["gpu"]),
        f"--backend cuda can {'be used' if gpu_is_usable(report['gpu']) else 'not be used'} here",
        "",
        *software_to_lines(report["software"]),
        *runners_to_lines(report["runners"]),
        "",
        *machine_to_lines(report["board"]),
        *nvml_to_lines(report["gpu_clocks"]),
        "",
        *(f"warning: {warning}" for warning in report["warnings"]),
        "ready to run a gate on the CPU" if report["ready"] else "NOT ready",
    ]
    return "\n".join(lines)


def _gallery() -> str | None:
    """The user's own gallery, where there is one."""
    try:
        path = default_gallery()
    except UsageError:
        return None
    return str(path) if path.is_file() else None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _has(build: str, name: str) -> bool:
    """Whether OpenCV's build report says YES to a line."""
    lines = [line for line in build.splitlines() if line.strip().startswith(f"{name}:")]
    return any("YES" in line for line in lines)
