"""Where a profile was taken, and what disturbed it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from immunogate.cli.doctor_machine import examine_machine, machine_warnings
from immunogate.cli.doctor_nvml import examine_nvml, nvml_warnings
from immunogate.profiling.recording import FRAME, Recording
from immunogate.profiling.summary import readings_to_dict, summed_stages
from immunogate.runtime.profile.board_sensors import board_sensors
from immunogate.runtime.profile.process_sensors import MachineSensor, ProcessSensor, forced_switches, peak_rss_mb
from immunogate.runtime.profile.sampler import Sensor

PACKAGES = ("immunogate", "numpy", "opencv-python-headless", "onnxruntime", "onnxruntime-gpu", "tensorrt", "nvtx")
MOST_OTHERS, MOST_STEAL = 10.0, 2.0
"""Percent of one processor that others may use, and a hypervisor may take away, before it is said."""

MOST_SPREAD = 10.0
"""Percent by which the runs' medians may be apart."""

LEAST_CLOCK = 0.9
"""Least clock of the processors, as a share of the highest seen."""

GPU_SENSORS = ("gpu_memory_mb", "gpu_percent", "gpu_w", "gpu_c")
BOARD_SENSORS = ("board_w", "cpu_c", "cpu_mhz")
"""Named in every document, with null where the machine does not tell them."""


def environment() -> dict[str, Any]:
    """Device, clocks, power mode, versions, load: call it first, so that the load is that before the profile."""
    machine, gpus = examine_machine(), examine_nvml()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": _cpu_name() or platform.processor() or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "ram_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "niceness": os.nice(0),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "board": machine,
        "gpu": gpus[0]["name"] if gpus else None,
        "gpu_clocks": gpus,
    }


def sensors() -> list[Sensor]:
    """All that this machine has."""
    return [ProcessSensor(), MachineSensor(), *board_sensors()]


def resources(runs: Sequence[Recording], switches_before: int | None) -> dict[str, Any]:
    """What the sensors told over all runs; None for what nobody told."""
    after = forced_switches()
    counted = None if after is None or switches_before is None else max(0, after - switches_before)
    told = dict.fromkeys((*GPU_SENSORS, *BOARD_SENSORS)) | readings_to_dict(runs)
    return {**told, "peak_rss_mb": peak_rss_mb(), "forced_context_switches": counted}


def disturbances(before: dict[str, Any], runs: Sequence[Recording], found: dict[str, Any]) -> list[str]:
    """What makes the figures less than they could be: a busy machine, a throttled one, runs that do not agree.

    Args:
        before: of `environment`.
        runs: of the profile.
        found: of `resources`.
    """
    said = [*machine_warnings(before["board"]), *nvml_warnings(before["gpu_clocks"])]
    others, stolen, clock = (found.get(name) for name in ("others_percent", "steal_percent", "cpu_mhz"))
    if others and others["mean"] > MOST_OTHERS:
        said.append(f"the machine was busy: other processes used {others['mean']:.0f} % of a processor on average")
    if stolen and stolen["mean"] > MOST_STEAL:
        said.append(f"the hypervisor gave {stolen['mean']:.1f} % of a processor to others on average")
    if clock and clock["min"] < LEAST_CLOCK * clock["max"]:
        said.append(f"the processors' clock went from {clock['max']:.0f} down to {clock['min']:.0f} MHz meanwhile")
    for reason in (*examine_machine()["throttled"], *nvml_warnings(examine_nvml())):
        if reason not in " ".join(said):
            said.append(f"throttled meanwhile: {reason}")
    spread = summed_stages(runs).get(FRAME, {}).get("spread_percent")
    if spread is not None and spread > MOST_SPREAD:
        said.append(f"the runs' medians of a frame are {spread:.0f} % apart: the machine did not keep its pace")
    return said


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
