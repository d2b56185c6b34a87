"""What ``immunogate doctor`` reads of a machine's board, power mode and clocks. It reads files; it changes nothing.

Every function takes the root folder, so that tests can lay out the files of a board that is not here.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path("/")
QUERY_TIMEOUT = 5.0
"""Seconds that ``nvpmodel -q`` may take before its answer is done without."""

JETPACKS = (
    ("39.", "7.2"),
    ("38.4", "7.1"),
    ("38.", "7.0"),
    ("36.5", "6.2.2"),
    ("36.4.7", "6.2.1"),
    ("36.4.4", "6.2.1"),
    ("36.4.3", "6.2"),
    ("36.4", "6.1"),
    ("36.", "6.0"),
)
"""JetPack by the beginning of its L4T release, from NVIDIA's JetPack archive; the first that fits."""

ALWAYS_SCALES = ("intel_pstate", "amd-pstate-epp")
"""Frequency drivers whose governor "powersave" means scaling on demand, not the lowest clock."""


def examine_machine(root: Path = ROOT, query: Callable[[], str] | None = None) -> dict[str, Any]:
    """Board, power mode, clocks and throttling; None or empty where the machine does not tell.

    Args:
        root: where /proc, /sys, /etc and /var lie.
        query: asks the power mode where no file tells; ``nvpmodel -q`` by default, on the real root alone.
    """
    release = l4t_release(root)
    jetson = release is not None
    return {
        "model": _text(root / "proc/device-tree/model") or _text(root / "sys/devices/virtual/dmi/id/product_name"),
        "l4t": release,
        "jetpack": jetpack(release) if release else None,
        "power_mode": power_mode(root, query or (_nvpmodel if root == ROOT else str)) if jetson else None,
        "cpu": cpu_clocks(root),
        "clocks": device_clocks(root),
        "throttled": throttling(root),
    }


def l4t_release(root: Path) -> str | None:
    """36.4.3 for instance; None on a machine that is no Jetson. From /etc/nv_tegra_release."""
    line = (_text(root / "etc/nv_tegra_release") or "").partition("\n")[0]
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", line)
    return f"{found[1]}.{found[2]}" if found else None


def jetpack(release: str) -> str | None:
    """The JetPack of an L4T release, None where this table does not know it."""
    return next((name for start, name in JETPACKS if release.startswith(start)), None)


def power_mode(root: Path, query: Callable[[], str]) -> dict[str, Any] | None:
    """Number and name of nvpmodel's mode, and the one without limits where the board has one."""
    modes = dict(re.findall(r"^< POWER_MODEL ID=(\d+) NAME=(\S+) >", _text(root / "etc/nvpmodel.conf") or "", re.M))
    stated = re.search(r"pmode:(\d+)", _text(root / "var/lib/nvpmodel/status") or "")
    if stated:
        number, name = str(int(stated[1])), modes.get(str(int(stated[1])))
    else:
        asked = re.search(r"NV Power Mode: (\S+)\s+(\d+)", query())
        if not asked:
            return None
        number, name = asked[2], asked[1]
    free = next((int(other) for other, called in modes.items() if called.startswith("MAXN")), None)
    return {"id": int(number), "name": name, "unlimited_id": free}


def cpu_clocks(root: Path) -> list[dict[str, Any]]:
    """Governor, driver and clocks in MHz of each group of processors that share a clock."""
    return [
        {
            "policy": policy.name,
            "governor": _text(policy / "scaling_governor"),
            "driver": _text(policy / "scaling_driver"),
            "preference": _text(policy / "energy_performance_preference"),
            "now_mhz": _mhz(policy / "scaling_cur_freq", 1000),
            "allowed_mhz": _mhz(policy / "scaling_max_freq", 1000),
            "possible_mhz": _mhz(policy / "cpuinfo_max_freq", 1000),
        }
        for policy in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    ]


def device_clocks(root: Path) -> dict[str, dict[str, Any]]:
    """Clocks in MHz of a Jetson's GPU and memory (EMC); empty elsewhere, or where only root may read them."""
    found = {}
    for node in sorted((root / "sys/class/devfreq").glob("*")):
        gpu = "gpu" in node.name or re.search(r"\.g[abvp]\d\d", node.name)
        if gpu or node.name == "bwmgr":  # bwmgr: the memory of a Thor
            found[f"gpu {node.name}" if gpu else "emc"] = {
                "governor": _text(node / "governor"),
                "now_mhz": _mhz(node / "cur_freq", 1_000_000),
                "allowed_mhz": _mhz(node / "max_freq", 1_000_000),
            }
    emc = root / "sys/kernel/debug/bpmp/debug/clk/emc"
    if "emc" not in found and _mhz(emc / "rate", 1_000_000) is not None:
        now, most = (_mhz(emc / name, 1_000_000) for name in ("rate", "max_rate"))
        found["emc"] = {"governor": None, "now_mhz": now, "allowed_mhz": most}
    return found


def throttling(root: Path) -> list[str]:
    """What holds clocks down now, or did since the machine started, in words."""
    said = []
    for device in sorted((root / "sys/class/thermal").glob("cooling_device*")):
        kind, state = _text(device / "type") or "", _number(device / "cur_state")
        if state and re.search("cpufreq|devfreq|throttle", kind, re.IGNORECASE):
            said.append(f"heat: {kind} is at step {state} of {_number(device / 'max_state')}")
    for counter in sorted((root / "sys/class/hwmon").glob("hwmon*/oc*_event_cnt")):
        count = _number(counter)
        if count:
            said.append(f"supply: {counter.name.partition('_')[0]} saw {count} over-current events since the start")
    return said


def machine_warnings(report: dict[str, Any]) -> list[str]:
    """What slows this machine down, each with what mends it."""
    said = []
    mode = report["power_mode"]
    if mode and mode["unlimited_id"] is not None and mode["id"] != mode["unlimited_id"]:
        said.append(
            f"power mode {mode['name'] or mode['id']} limits the clocks; where supply and cooling allow: "
            f"sudo nvpmodel -m {mode['unlimited_id']}"
        )
    slow = [cpu["policy"] for cpu in report["cpu"] if _is_slow(cpu)]
    if slow:
        said.append(
            f"the governor of {', '.join(slow)} keeps the processors at their lowest clock: "
            "sudo cpupower frequency-set -g schedutil (or performance)"
        )
    said += [f"clocks are held down by {what}: see to cooling and power supply" for what in report["throttled"]]
    return said


def machine_to_lines(report: dict[str, Any]) -> list[str]:
    """One line a part, for people."""
    lines = []
    if report["l4t"]:
        known = f"JetPack {report['jetpack']}" if report["jetpack"] else "a JetPack that this release does not know"
        lines.append(f"{'board':<24}{report['model'] or 'unknown'}, L4T {report['l4t']}, {known}")
        mode = report["power_mode"]
        lines.append(f"{'power mode':<24}{mode['name'] or mode['id'] if mode else 'not told; sudo nvpmodel -q'}")
    lines += [f"{cpu['policy']:<24}{_clock(cpu)}, governor {cpu['governor'] or 'not told'}" for cpu in report["cpu"]]
    lines += [f"{name:<24}{_clock(clock)}" for name, clock in report["clocks"].items()]
    return lines or [f"{'clocks':<24}this machine does not tell them"]


def _is_slow(cpu: dict[str, Any]) -> bool:
    if cpu["driver"] in ALWAYS_SCALES:
        return bool(cpu["preference"] == "power")
    return bool(cpu["governor"] == "powersave")


def _clock(clock: dict[str, Any]) -> str:
    shown = " of ".join(f"{value:.0f}" for value in (clock["now_mhz"], clock["allowed_mhz"]) if value is not None)
    return f"{shown or '?'} MHz"


def _nvpmodel() -> str:
    """What ``nvpmodel -q`` says; empty where it is not there, fails, or takes too long."""
    try:
        done = subprocess.run(
            ["nvpmodel", "-q"],  # noqa: S607 - its place differs between releases
            capture_output=True,
            text=True,
            timeout=QUERY_TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:  # not there, not for us to read, or not answering
        return None


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text and re.fullmatch(r"-?\d+", text) else None


def _mhz(path: Path, per_mhz: int) -> float | None:
    value = _number(path)
    return None if value is None else round(value / per_mhz, 1)
