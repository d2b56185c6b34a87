"""tools/gpu_check.sh: its flags, and that a step that fails is noted and stops nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.skipif(shutil.which("timeout") is None, reason="timeout of coreutils is not installed")


def check(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(ROOT / "tools" / "gpu_check.sh"), *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)


@pytest.fixture
def python(tmp_path: Path) -> str:
    """A Python, named a fake, that fails for one script and says what it was asked for the others."""
    script = tmp_path / "fake-python"
    script.write_text('#!/bin/sh\necho "asked $*"\ncase "$*" in *--compile*) exit 3 ;; esac\n', encoding="utf-8")
    script.chmod(0o755)
    return str(script)


def steps(out: Path) -> list[list[str]]:
    return [line.split("\t")[:2] for line in (out / "steps.tsv").read_text(encoding="utf-8").splitlines()]


def test_a_failed_step_is_noted_and_the_others_run(tmp_path: Path, python: str) -> None:
    done = check("--part", "134", "--quick", "--out", str(tmp_path / "out"), PYTHON=python)
    assert done.returncode == 1
    want = [["state", "0"], ["compile", "3"], ["tests", "0"], ["bench_gpu_kernels", "0"], ["bench_gpu_path", "0"]]
    assert steps(tmp_path / "out") == want
    assert "asked tools/gpu_state.py --compile" in done.stdout  # the end of a failed step's log
    log = (tmp_path / "out" / "bench_gpu_path.log").read_text(encoding="utf-8")
    assert log.startswith("asked benchmarks/bench_gpu_path.py --quick --out ")


def test_the_folder_is_that_of_the_environment_and_all_is_well(tmp_path: Path, python: str) -> None:
    done = check("--part", "3", PYTHON=python, OUT=str(tmp_path / "a" / "b"))
    assert (done.returncode, steps(tmp_path / "a" / "b")) == (0, [["bench_gpu_kernels", "0"]])


def test_the_sanitizers_run_the_same_script(tmp_path: Path, python: str) -> None:
    sanitizer = tmp_path / "compute-sanitizer"
    shutil.copy2(python, sanitizer)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = check("--part", "2", "--out", str(tmp_path / "out"), PYTHON=python, PATH=path)
    assert done.returncode == 0, done.stdout
    assert [name for name, _ in steps(tmp_path / "out")] == ["agree", "memcheck", "racecheck", "initcheck", "synccheck"]
    said = (tmp_path / "out" / "memcheck.log").read_text(encoding="utf-8")
    assert said.startswith("asked --tool memcheck --report-api-errors no --error-exitcode 9 ")
    assert said.strip().endswith("tools/sanitize_kernels.py --rounds 1")


def test_what_there_is_no_time_for_is_left_out_and_said(tmp_path: Path, python: str) -> None:
    done = check("--part", "34", "--seconds", "0", "--out", str(tmp_path / "out"), PYTHON=python)
    assert done.returncode == 1
    assert steps(tmp_path / "out") == [["bench_gpu_kernels", "skipped"], ["bench_gpu_path", "skipped"]]


@pytest.mark.parametrize("words", [("--part", "5"), ("--seconds", "soon"), ("--fast",), ("--out",)])
def test_wrong_use_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    done = check(*words, OUT=str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr
    assert not (tmp_path / "out").exists()
