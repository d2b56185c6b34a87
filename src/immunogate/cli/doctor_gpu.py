"""What ``immunogate doctor`` says about GPUs and compilers: what is here, and what each missing part costs."""

from __future__ import annotations

from typing import Any

FIRST_OF_13 = 13
"""CUDA of the drivers from which on the extra gpu fits; older ones take gpu12."""


def examine_gpu() -> dict[str, Any]:
    """Driver, devices, bindings, compilers, prebuilt kernels and the host build; None or empty where missing."""
    from immunogate.kernels import compile as compiling
    from immunogate.kernels.compilers import find_compilers
    from immunogate.kernels.cubins import carried
    from immunogate.kernels.device import binding_versions, probe

    state = probe()
    compilers = {compiler.name: compiler.version for compiler in find_compilers()}
    return {
        "driver": None if state.version is None else state.version_text(),
        "devices": [
            {"name": name, "architecture": f"sm_{major}{minor}"}
            for name, (major, minor) in zip(state.devices, state.capabilities, strict=True)
        ],
        "problem": state.problem or None,
        "remedy": state.remedy or None,
        "bindings": binding_versions(),
        "compilers": {name: compilers.get(name) for name in ("nvcc", "nvrtc")},
        "prebuilt": carried(compiling.SOURCES / "cubin"),
        "host_compiler": _host_compiler(),
    }


def gpu_to_lines(report: dict[str, Any]) -> list[str]:
    """One line a part, with what it costs where it is missing."""
    devices = ", ".join(f"{device['name']} ({device['architecture']})" for device in report["devices"])
    known = report["driver"] and f"for CUDA {report['driver']}"
    driver, compilers, bindings = report["driver"], report["compilers"], report["bindings"]
    brings = {"pycuda": "from a checkout: make pycuda", "cuda-core": f"pip install 'immunogate[{extra_for(driver)}]'"}
    needed = "needed only where there are no prebuilt kernels and no other compiler"
    lines = [
        ("driver", known, "missing; faces are purified on the CPU"),
        ("device", devices, f"none: {report['problem']}. {report['remedy']}"),
        *((name, found, f"missing; one of the two will do: {brings[name]}") for name, found in bindings.items()),
        ("prebuilt kernels", ", ".join(report["prebuilt"]), "none in this package; a compiler makes them at first use"),
        ("nvcc", compilers["nvcc"], f"missing; {needed}: install the CUDA toolkit"),
        ("nvrtc", compilers["nvrtc"], f"missing; {needed}: pip install nvidia-cuda-nvrtc"),
        ("host compiler", report["host_compiler"], "missing; clones are drawn by NumPy, slower with the same results"),
    ]
    return [f"{name:<24}{found or missing}" for name, found, missing in lines]


def extra_for(driver: str | None) -> str:
    """The extra whose bindings fit a driver, by the CUDA that it is for (12.6 for instance)."""
    return "gpu12" if driver is not None and int(driver.partition(".")[0]) < FIRST_OF_13 else "gpu"


def gpu_is_usable(report: dict[str, Any]) -> bool:
    """Whether ``--backend cuda`` has what it needs."""
    code = report["prebuilt"] or any(report["compilers"].values())
    return bool(report["devices"] and any(report["bindings"].values()) and code)


def _host_compiler() -> str | None:
    from immunogate.kernels.host_build import HostBuildError, find_compiler

    try:
        return find_compiler()
    except HostBuildError:
        return None
