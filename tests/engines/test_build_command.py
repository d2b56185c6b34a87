"""``immunogate build`` on a FAKE GPU with a FAKE TensorRT, and on this machine as it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from immunogate.bundle import Bundle
from immunogate.cli import main
from immunogate.engines.record import EngineRecord
from immunogate.kernels.device import probe


class Said:
    """How a command ended and what it said."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    def do(*words: object) -> Said:
        capsys.readouterr()
        try:
            status = main(["build", *map(str, words)])
        except SystemExit as wrong_use:
            status = int(wrong_use.code or 0)
        return Said(status, *capsys.readouterr())

    return do


@pytest.fixture
def engines(tmp_path: Path) -> Any:
    return tmp_path / "engines"


def test_all_networks_are_built_and_recorded(run: Any, fake_machine: Any, tiny_bundle: Bundle, engines: Path) -> None:
    done = run(tiny_bundle.folder, "--out", engines, "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert [item["network"] for item in report["networks"]] == ["detector", "analyzer", "recogniser"]
    for item in report["networks"]:
        record = EngineRecord.from_json((engines / f"{item['network']}.engine.json").read_text(), "x")
        assert record.engine_bytes == Path(item["engine"]).stat().st_size
        assert record.onnx_sha256 == tiny_bundle.manifest.files[record.onnx_file].sha256
        assert record.bundle_sha256 == tiny_bundle.sha256
        assert record.machine.tensorrt == "10.3"
        assert (record.machine.device_name, record.machine.compute_capability) == ("Fake Orin", "8.7")
        assert item["trtexec"].startswith("trtexec --onnx=")
        assert f"--timingCacheFile={report['timing_cache']}" in item["trtexec"]
        assert item["built"] is True
        assert item["notes"] == ["a warning of the build"]
    assert report["machine"]["tensorrt"] == "10.3"


def test_what_is_up_to_date_is_kept(run: Any, fake_machine: Any, tiny_bundle: Bundle, engines: Path) -> None:
    assert "next: immunogate verify" in run(tiny_bundle.folder, "--out", engines).out
    built = len(fake_machine.fake.built)
    done = run(tiny_bundle.folder, "--out", engines)
    assert done.err.count("up to date") == 3
    assert len(fake_machine.fake.built) == built
    (engines / "analyzer.engine").write_bytes(b"damaged")
    assert run(tiny_bundle.folder, "--out", engines).err.count("up to date") == 2
    assert run(tiny_bundle.folder, "--out", engines, "--max-batch", 4).err.count("up to date") == 1
    assert run(tiny_bundle.folder, "--out", engines, "--max-batch", 4, "--force").err.count("up to date") == 0
    assert run(tiny_bundle.folder, "--out", engines, "--max-batch", 4, "--tf32").err.count("up to date") == 0


def test_without_a_folder_they_go_to_the_users_cache(run: Any, fake_machine: Any, tiny_bundle: Bundle) -> None:
    report = json.loads(run(tiny_bundle.folder, "--network", "recogniser", "--json").out)
    assert Path(report["folder"]).is_relative_to(Path(os.environ["XDG_CACHE_HOME"]) / "immunogate" / "engines")
    assert [path.name for path in sorted(Path(report["folder"]).iterdir())] == [
        "recogniser.engine", "recogniser.engine.json"
    ]  # fmt: skip
    assert Path(report["timing_cache"]).is_file()


def test_the_timing_cache(run: Any, fake_machine: Any, tiny_bundle: Bundle, engines: Path, tmp_path: Path) -> None:
    mine, foreign = tmp_path / "mine.cache", tmp_path / "foreign.cache"
    words = (tiny_bundle.folder, "--out", engines, "--network", "recogniser", "--force")
    run(*words, "--timing-cache", mine)
    assert mine.read_bytes().startswith(b"fake timing cache of 10.3")
    foreign.write_bytes(b"fake timing cache of 8.6")
    done = run(*words, "--timingCacheFile", foreign)
    assert done.status == 0
    assert f"the timing cache {foreign} was made elsewhere: it was neither used nor changed" in done.err
    assert foreign.read_bytes() == b"fake timing cache of 8.6"
    report = json.loads(run(*words, "--no-timing-cache", "--json").out)
    assert report["timing_cache"] is None
    assert "--timingCacheFile" not in report["networks"][0]["trtexec"]


def test_names_of_trtexec_are_understood(run: Any, fake_machine: Any, tiny_bundle: Bundle, engines: Path) -> None:
    words = ("--memPoolSize", "workspace:2G", "--builderOptimizationLevel=1", "--hardwareCompatibilityLevel=ampere+")
    done = run(tiny_bundle.folder, "--out", engines, "--network", "recogniser", *words, "--vc", "--json")
    (item,) = json.loads(done.out)["networks"]
    assert item["flags"] == {
        "version_compatible": True, "hardware_compatible": "ampere+", "tf32": False, "workspace_mib": 2048,
        "optimization_level": 1,
    }  # fmt: skip
    again = run(tiny_bundle.folder, "--out", engines, "--network", "recogniser", *words, "--vc", "--force")
    assert "version compatible engines carry code" in again.out


def test_what_tensorrt_says_ends_the_command(run: Any, fake_machine: Any, tiny_bundle: Bundle, engines: Path) -> None:
    fake_machine.fake.refused = "out of memory"
    done = run(tiny_bundle.folder, "--out", engines)
    assert done.status == 1
    assert done.err.splitlines()[-1].startswith("immunogate: TensorRT could not build detector.onnx: out of memory.")
    assert not engines.exists()


def test_an_interrupt_leaves_what_was_there(
    run: Any, fake_machine: Any, tiny_bundle: Bundle, engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tiny_bundle.folder, "--out", engines).status == 0
    before = {path.name: path.read_bytes() for path in engines.iterdir()}
    build = fake_machine.Builder.build_serialized_network

    def interrupted(self: Any, network: Any, config: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.3)
        return build(self, network, config)

    monkeypatch.setattr(fake_machine.Builder, "build_serialized_network", interrupted)
    done = run(tiny_bundle.folder, "--out", engines, "--force", "--max-batch", 2)
    assert done.status == 130, done.err
    assert "nothing was left half written" in done.err
    assert {path.name: path.read_bytes() for path in engines.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-batch", "0"), "--max-batch must be in 1 .. 64"),
        (("--detector-size", "5"), "--detector-size must be in"),
        (("--precision", "int8"), "calibrate precision"),
        (("--workspace", "0"), "must be in 1"),
        (("--workspace", "workspace:x"), "expected MiB"),
        (("--device", "3"), "there is no device 3"),
    ],
)
def test_wrong_use(run: Any, fake_machine: Any, tiny_bundle: Bundle, words: Any, said: str) -> None:
    done = run(tiny_bundle.folder, *words)
    assert done.status in (1, 2)
    assert said in done.err.splitlines()[-1]
    assert not fake_machine.fake.built


def test_a_dry_run_needs_nothing(run: Any, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    done = run(tiny_bundle.folder, "--dry-run")
    assert done.status == 0, done.err
    assert done.out.count("trtexec --onnx=") == 3
    assert "nothing was built" in done.out
    report = json.loads(run(tiny_bundle.folder, "--dry-run", "--json").out)
    assert [item["network"] for item in report["networks"]] == ["detector", "analyzer", "recogniser"]
    assert report["networks"][2]["profiles"][3]["max"] == [8, 3, 112, 96]


def test_old_or_missing_tensorrt_is_named(
    run: Any, fake_machine: Any, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_machine.__version__ = "8.6.1"
    assert "TensorRT 8.6.1 is too old, 10.3 is the oldest" in run(tiny_bundle.folder).err
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    done = run(tiny_bundle.folder)
    assert done.status == 2
    assert "python3-libnvinfer" in done.err.splitlines()[-1]


CRASHING = "import os\nos.abort()\n"


@pytest.mark.parametrize("tensorrt", ["missing", "present and crashing without a driver"])
def test_without_a_driver_it_ends_at_once_in_words(tiny_bundle: Bundle, tmp_path: Path, tensorrt: str) -> None:
    """TensorRT must not even be imported: parts of it crash where there is no driver."""
    if probe().version is not None:
        pytest.skip("a driver is installed here")
    environment = {**os.environ, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    if tensorrt != "missing":
        (tmp_path / "tensorrt.py").write_text(CRASHING, encoding="utf-8")
        environment["PYTHONPATH"] = f"{tmp_path}:{environment['PYTHONPATH']}"
    command = [sys.executable, "-m", "immunogate", "build", str(tiny_bundle.folder)]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert time.monotonic() - start < 20
    assert done.returncode == 1, done.stderr
    (last,) = done.stderr.splitlines()[-1:]
    assert last.startswith("immunogate: an engine is built on the machine that runs it: no NVIDIA driver")
    assert "--dry-run" in last


def test_neither_torch_nor_onnx_is_needed(tiny_bundle: Bundle) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'onnxscript')))\n"
        "from immunogate.cli import main; status = main(sys.argv[1:])\n"
        "import immunogate.export.engine.builder, immunogate.export.engine.build, immunogate.runtime.runners.tensorrt\n"
        "print(status, 'tensorrt' in sys.modules)"
    )
    command = [sys.executable, "-c", code, "build", str(tiny_bundle.folder), "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False"


def test_a_model_repository_for_triton(run: Any, tiny_bundle: Bundle, tmp_path: Path) -> None:
    done = run(tiny_bundle.folder, "--format", "triton", "--out", tmp_path / "models", "--max-batch", 4, "--json")
    assert done.status == 0, done.err
    report = json.loads(done.out)
    assert str(tmp_path / "models" / "immunogate" / "config.pbtxt") in report["files"]
    assert all(Path(file).is_file() for file in report["files"])
    assert "max_batch_size: 4" in (tmp_path / "models" / "immunogate" / "config.pbtxt").read_text()
    for words in (("--out", tmp_path / "m", "--dry-run"), ("--precision", "fp32", "--out", tmp_path / "m"), ()):
        assert run(tiny_bundle.folder, "--format", "triton", *words).status == 2
