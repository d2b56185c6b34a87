"""What doctor reads of boards, clocks and power, over folders of files that mimic boards that are not here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immunogate.cli import doctor, doctor_machine
from immunogate.cli.doctor_machine import examine_machine, machine_to_lines, machine_warnings
from immunogate.cli.doctor_software import examine_software, software_to_lines

Command = Callable[..., Any]


ORIN_NANO_62 = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, "
    "DATE: Wed Jan  8 01:49:37 UTC 2025\n# KERNEL_VARIANT: oot\n",
    "etc/nvpmodel.conf": "< PARAM TYPE=FILE NAME=CPU_ONLINE >\nCORE_1 /sys/devices/system/cpu/cpu1/online\n"
    "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_1 1\n< POWER_MODEL ID=1 NAME=25W >\n"
    "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n< PM_CONFIG DEFAULT=1 >\n",
    "var/lib/nvpmodel/status": "pmode:0001",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_driver": "tegra194\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1344000\n",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1728000\n",
    "sys/class/devfreq/17000000.gpu/governor": "nvhost_podgov\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "918000000\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/max_rate": "3199000000\n",
    "sys/class/hwmon/hwmon3/oc3_event_cnt": "0\n",
    "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}}',
    "var/lib/dpkg/status": "Package: libnvinfer10\nStatus: install ok installed\nVersion: 10.3.0.30-1+cuda12.5\n\n"
    "Package: libcudnn9-cuda-12\nStatus: install ok installed\nVersion: 9.3.0.75-1\n\n"
    "Package: libcudnn8\nStatus: deinstall ok config-files\nVersion: 8.9.4\n",
}
"""A FAKE Jetson Orin Nano on JetPack 6.2 in its 25 W mode."""

THOR_72 = {
    "etc/nv_tegra_release": "# R39 (release), REVISION: 2.0, GCID: 40000000, BOARD: generic, EABI: aarch64, "
    "DATE: Mon Jun  1 00:00:00 UTC 2026\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=120W >\n< PM_CONFIG DEFAULT=1 >\n",
    "proc/device-tree/model": "NVIDIA Jetson AGX Thor Developer Kit\0",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "2601000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "2601000\n",
    "sys/class/devfreq/gpu-gpc-0/cur_freq": "1575000000\n",
    "sys/class/devfreq/gpu-gpc-0/max_freq": "1575000000\n",
    "sys/class/devfreq/bwmgr/cur_freq": "4266000000\n",
    "sys/class/devfreq/bwmgr/max_freq": "4266000000\n",
    "sys/class/thermal/cooling_device1/type": "gpu-gpc-0-devfreq-throttle\n",
    "sys/class/thermal/cooling_device1/cur_state": "2\n",
    "sys/class/thermal/cooling_device1/max_state": "5\n",
    "sys/class/hwmon/hwmon1/oc1_event_cnt": "7\n",
    "var/lib/dpkg/status": "Package: libnvinfer10\nStatus: install ok installed\nVersion: 10.16.2.1-1+cuda13.2\n",
}
"""A FAKE Jetson AGX Thor on JetPack 7.2, hot, whose power mode no file tells."""

DESKTOP = {
    "sys/devices/virtual/dmi/id/product_name": "A desktop\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_driver": "acpi-cpufreq\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "800000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "3600000\n",
    "sys/devices/system/cpu/cpufreq/policy1/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpufreq/policy1/scaling_driver": "intel_pstate\n",
    "sys/devices/system/cpu/cpufreq/policy1/energy_performance_preference": "balance_performance\n",
    "sys/devices/system/cpu/cpufreq/policy1/scaling_cur_freq": "not a number\n",
}
"""A FAKE desktop with two kinds of frequency drivers."""


def lay_out(folder: Path, files: dict[str, str]) -> Path:
    """Write the files below a folder, which is then the root of the fake machine."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def orin(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "orin", ORIN_NANO_62)


@pytest.fixture
def thor(tmp_path: Path) -> Path:
    return lay_out(tmp_path / "thor", THOR_72)


def test_an_orin_on_jetpack_62(orin: Path) -> None:
    found = examine_machine(orin)
    assert (found["l4t"], found["jetpack"]) == ("36.4.3", "6.2")
    assert found["model"] == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"
    assert found["power_mode"] == {"id": 1, "name": "25W", "unlimited_id": 2}
    assert found["clocks"]["gpu 17000000.gpu"] == {"governor": "nvhost_podgov", "now_mhz": 306.0, "allowed_mhz": 918.0}
    assert found["clocks"]["emc"]["allowed_mhz"] == 3199.0
    assert set(found["clocks"]) == {"gpu 17000000.gpu", "emc"}, "the VIC is no GPU"
    assert found["throttled"] == []
    (warning,) = machine_warnings(found)
    assert "power mode 25W limits the clocks" in warning
    assert "sudo nvpmodel -m 2" in warning
    shown = "\n".join(machine_to_lines(found))
    for words in ("L4T 36.4.3, JetPack 6.2", "25W", "730 of 1344 MHz, governor schedutil", "306 of 918 MHz"):
        assert words in shown


def test_a_thor_on_jetpack_72_asks_nvpmodel_where_no_file_tells(thor: Path) -> None:
    found = examine_machine(thor, query=lambda: "NV Power Mode: 120W\n1\n")
    assert (found["l4t"], found["jetpack"]) == ("39.2.0", "7.2")
    assert found["power_mode"] == {"id": 1, "name": "120W", "unlimited_id": 0}
    assert found["clocks"]["gpu gpu-gpc-0"]["now_mhz"] == 1575.0
    assert found["clocks"]["emc"]["now_mhz"] == 4266.0
    warnings = "\n".join(machine_warnings(found))
    for words in (
        "sudo nvpmodel -m 0",
        "gpu-gpc-0-devfreq-throttle is at step 2 of 5",
        "oc1 saw 7 over-current events",
    ):
        assert words in warnings
    silent = examine_machine(thor)  # never the real nvpmodel over another root
    assert silent["power_mode"] is None
    assert "sudo nvpmodel -q" in "\n".join(machine_to_lines(silent))


def test_the_unlimited_mode_is_no_warning(orin: Path) -> None:
    (orin / "var/lib/nvpmodel/status").write_text("pmode:0002", encoding="utf-8")
    assert machine_warnings(examine_machine(orin)) == []


@pytest.mark.parametrize(
    ("release", "known"),
    [("R36 (release), REVISION: 4.7", "6.2.1"), ("R36 (release), REVISION: 5.0", "6.2.2"),
     ("R36 (release), REVISION: 3.0", "6.0"), ("R38 (release), REVISION: 4.0", "7.1"),
     ("R38 (release), REVISION: 2.1", "7.0"), ("R39 (release), REVISION: 2.0", "7.2"),
     ("R35 (release), REVISION: 4.1", None)],
)  # fmt: skip
def test_the_jetpack_of_a_release(orin: Path, release: str, known: str | None) -> None:
    (orin / "etc/nv_tegra_release").write_text(f"# {release}, GCID: 1, BOARD: generic\n", encoding="utf-8")
    found = examine_machine(orin)
    assert found["jetpack"] == known
    assert ("does not know" in "\n".join(machine_to_lines(found))) is (known is None)


def test_a_desktop_warns_of_the_governor_that_keeps_the_lowest_clock_and_of_no_other(tmp_path: Path) -> None:
    found = examine_machine(lay_out(tmp_path, DESKTOP))
    assert (found["l4t"], found["power_mode"], found["clocks"]) == (None, None, {})
    assert found["cpu"][1]["now_mhz"] is None
    (warning,) = machine_warnings(found)
    assert "policy0 keeps" in warning, "intel_pstate's powersave scales on demand"
    path = tmp_path / "sys/devices/system/cpu/cpufreq/policy1/energy_performance_preference"
    path.write_text("power\n", encoding="utf-8")
    assert "policy0, policy1" in machine_warnings(examine_machine(tmp_path))[0]


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    found = examine_machine(tmp_path)
    assert machine_warnings(found) == []
    assert "does not tell" in machine_to_lines(found)[0]


def test_nvpmodel_that_is_not_there_or_hangs_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (FileNotFoundError("nvpmodel"), subprocess.TimeoutExpired("nvpmodel", 5)):

        def fail(*_: Any, error: Exception = error, **options: Any) -> None:
            assert options["timeout"] <= 5
            raise error

        monkeypatch.setattr(subprocess, "run", fail)
        assert doctor_machine._nvpmodel() == ""


def test_versions_of_the_system_on_a_jetson(orin: Path, thor: Path) -> None:
    found = examine_software(orin)
    assert found["CUDA toolkit"]["system"] == "12.6.11"
    assert found["TensorRT"]["system"] == "10.3.0.30-1+cuda12.5"
    assert found["cuDNN"]["system"] == "9.3.0.75-1", "what was removed does not count"
    assert "10.3.0.30-1+cuda12.5 (system)" in "\n".join(software_to_lines(found))
    assert examine_software(thor)["TensorRT"]["system"] == "10.16.2.1-1+cuda13.2"
    assert "not found" in "\n".join(software_to_lines(examine_software(orin / "nowhere")))


def test_doctor_shows_all_of_it(immunogate: Command, monkeypatch: pytest.MonkeyPatch, orin: Path) -> None:
    monkeypatch.setattr(doctor, "examine_machine", lambda: examine_machine(orin))
    monkeypatch.setattr(doctor, "examine_software", lambda: examine_software(orin))
    done = immunogate("doctor")
    assert done.status == 0, "a slow machine is no failure"
    assert "warning: power mode 25W limits the clocks" in done.out
    assert "12.6.11 (system)" in done.out
    report = json.loads(immunogate("doctor", "--json").out)
    assert report["board"]["jetpack"] == "6.2"
    assert report["runners"]["obstacles"]["cpu"] is None
    has_gstreamer = report["video"]["GStreamer"]
    assert any("GStreamer" in warning for warning in report["warnings"]) is not has_gstreamer


def test_a_toolkit_that_states_its_version_by_its_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "usr/local/cuda-13.0").mkdir(parents=True)
    (tmp_path / "usr/local/cuda").symlink_to("cuda-13.0")
    assert examine_software(tmp_path)["CUDA toolkit"]["system"] == "13.0"
