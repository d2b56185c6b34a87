"""The benchmarks are scripts beside the package: their helpers are found as the scripts find them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

Document = dict[str, Any]


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., Document]:
    """Run a benchmark with --quick as a user does and give the document it wrote."""

    def run(script: str, *words: str) -> Document:
        out = tmp_path / f"{script}.json"
        command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), "--quick", "--json", "--out", str(out)]
        ran = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=900)
        assert ran.returncode == 0, ran.stderr[-3000:]
        document: Document = json.loads(out.read_text(encoding="utf-8"))
        assert json.loads(ran.stdout) == document
        assert str(out) in ran.stderr
        return document

    return run
