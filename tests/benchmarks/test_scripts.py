"""Every benchmark runs, small, as a user runs it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_all import BENCHMARKS

from immunogate.kernels.host_build import HostBuildError, find_compiler

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [*BENCHMARKS, "provisional", "run_all"]
RunScript = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_says_what_it_measures(script: str) -> None:
    path = ROOT / "benchmarks" / f"{script}.py"
    if script in ("verification", "bench_training", "bench_networks"):
        pytest.importorskip("torch")
    ran = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    assert " ".join(first.split()) in " ".join(ran.stdout.split())


def test_run_all_knows_every_benchmark() -> None:
    assert {path.stem for path in (ROOT / "benchmarks").glob("bench_*.py")} <= set(BENCHMARKS)


def test_purify(run_script: RunScript) -> None:
    document = run_script("bench_purify")
    assert document["quick"] is True
    for name, case in document["measured"]["cases"].items():
        readings = [entry["median_ms"] for entry in case["readings_of_the_basis"].values()]
        assert case["readings_of_the_basis"][case["fastest_reading"]]["median_ms"] == min(readings), name
        assert 0 < case["ratio_to_needed"] < case["ratio_to_basis_once"]
        assert case["speed_up"]["NumPy"] > 0
    dense, third = (document["measured"]["cases"][f"{name}, B = 1"] for name in ("dense", "random third"))
    assert dense["bytes_needed"] == 2 * 300 * 12544 * 4
    assert 1.2 * dense["bytes_needed"] / 2 < third["bytes_needed"] < 1.5 * dense["bytes_needed"] / 2


def test_clones(run_script: RunScript) -> None:
    cases = run_script("bench_clones")["measured"]["clones"]
    assert list(cases) == ["25", "100"]
    assert cases["25"]["ours"]["median_ms"] < cases["100"]["every_clone_rebuilt"]["median_ms"]


def test_host(run_script: RunScript) -> None:
    try:
        find_compiler()
    except HostBuildError as error:
        pytest.skip(str(error))
    cases = run_script("bench_host")["measured"]["clones"]
    assert list(cases) == ["25", "100"]
    assert cases["100"]["speed_up"] > 1


@pytest.mark.data
@pytest.mark.slow
def test_basis(run_script: RunScript, data_dir: Path) -> None:
    measured = run_script("bench_basis")["measured"]
    assert (measured["faces"], measured["components"]) == (3889, 40)
    assert 100 < measured["peak_mb"][0] < 6000


@pytest.mark.data
@pytest.mark.slow
def test_pipeline(run_script: RunScript, data_dir: Path) -> None:
    pytest.importorskip("torch")  # exports the bundle
    document = run_script("bench_pipeline")
    measured = document["measured"]
    inside = measured["in_process"]
    assert {"age", "detect", "align", "purify", "recognise", "match"} <= set(inside["decoded before"]["latency_ms"])
    assert inside["decoded before"]["faces"] == inside["decode included"]["faces"] >= 100
    every = inside["every face, every frame"]
    assert every["decisions"] == every["faces"]
    assert measured["command"]["heavy_modules"] == []
    assert sum(measured["command"]["outcomes"].values()) == inside["decode included"]["decisions"]
    assert 60 < max(measured["command"]["peak_mb"]) < 500
    assert {target["what"] for target in document["targets"]} >= {"import immunogate", "immunogate run: peak memory"}


@pytest.mark.data
@pytest.mark.slow
def test_listening(run_script: RunScript) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed")
    measured = run_script("bench_listening")["measured"]
    assert measured["spans_per_frame"] > 20
    assert 0 < measured["silent_span_us"] < measured["span_us"]
    low, high = measured["cpu_interval_percent"]
    assert low <= measured["cpu_percent"] <= high


@pytest.mark.slow
def test_verification(run_script: RunScript, data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    measured = run_script("verification")["measured"]
    shared, own = measured["tar"].values()
    assert list(shared) == list(own)
    assert all(row["undefended"] == own[name]["undefended"] for name, row in shared.items())
    rates = {name: row["undefended"]["rate"] for name, row in shared.items()}
    strongest = rates["PGD-2, 0.04, away from the other picture"]
    assert strongest < rates["clean"]
    limits = measured["thresholds"]["threshold of each pipeline's own clean pairs"]
    assert limits["undefended"] != limits["top-1000"]
    matching = measured["impostor_pairs_matching"]["threshold of each pipeline's own clean pairs"]
    assert all(entry["hits"] == 1 for entry in matching.values())  # of 1,000
    assert "## TAR, " in (tmp_path / "verification.md").read_text(encoding="utf-8")


@pytest.mark.data
@pytest.mark.slow
def test_provisional_limits_are_read_back(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "provisional.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "provisional.py"), "--out", str(out)]
    ran = subprocess.run([*command, "--faces", "60", "--top-k", "700", "400"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    document = json.loads(out.read_text(encoding="utf-8"))
    shipped = json.loads((ROOT / "calib" / "provisional.json").read_text(encoding="utf-8"))
    assert [entry["top_k"] for entry in document["entries"]] == [400, 700]
    assert set(document) == set(shipped)
    entry, like = document["entries"][0], shipped["entries"][0]
    assert set(entry) == set(like)
    assert entry["recogniser_sha256"] == like["recogniser_sha256"]
    assert set(entry["thresholds"][0]) == set(like["thresholds"][0])


def test_default_bundle(run_script: RunScript) -> None:
    pytest.importorskip("skimage")
    measured = run_script("bench_default_bundle")["measured"]
    assert measured["frames"] == 24
    frame = measured["every_face_in_every_frame"]["frame_ms"]
    assert 0 < frame["p50"] <= frame["p99"]
    assert sum(measured["every_face_in_every_frame"]["outcomes"].values()) >= 20
    assert 0 < measured["bundle"]["bytes"] <= 25e6


@pytest.mark.torch
def test_networks(run_script: RunScript) -> None:
    pytest.importorskip("onnxscript")
    document = run_script("bench_networks")
    ((_, entry),) = document["measured"]["written_otherwise"].items()
    assert "PRelu" in entry["top"]["before"]
    assert "PRelu" not in entry["top"]["after"]
    assert set(entry["times"]) == {f"{threads} threads, {faces} faces" for threads in (1, 2) for faces in (1, 8)}
    assert entry["largest_change"] <= 1e-5
    assert list(document["measured"]["as_they_are"]) == ["detector that ships"]


@pytest.mark.data
@pytest.mark.slow
def test_precision(run_script: RunScript, data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    part = run_script("bench_precision")["measured"]["bundles"]["default"]
    assert set(part["accuracy"]) == set(part["networks"]) == {"fp16", "int8", "int8 for cpu"}
    assert part["accuracy"]["fp16"]["purified"]["mean"] > part["accuracy"]["int8"]["purified"]["mean"] > 0.99
    assert all(len(kind["speed_up"]) == 2 for times in part["times_ms"].values() for kind in times.values())
