"""Which GPU a figure was measured on, and in what state it was."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from immunogate.kernels.device import Device, binding_versions, probe

ASKED = ("name", "driver_version", "pstate", "clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "memory.used")


def gpu_environment(device: Device) -> dict[str, Any]:
    """Plain data; what nvidia-smi says is left out where it is not there."""
    return {
        "name": device.name,
        "architecture": device.architecture,
        "processors": device.processors,
        "driver_cuda": probe().version_text(),
        "binding": f"{device.binding} {binding_versions().get(device.binding)}",
        "state": gpu_state(),
    }


def gpu_state() -> dict[str, str]:
    """Clocks, power, temperature and memory of the first device, in nvidia-smi's words."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return {}
    command = [program, f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    first = said.strip().splitlines()[:1]
    return dict(zip(ASKED, (part.strip() for part in first[0].split(",")), strict=False)) if first else {}
