"""The paper's 25 clones a face at its real size fit an ordinary machine: clones share every product with the basis."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

LIMIT = 2 << 30
CODE = """
import json, re
import numpy as np, torch
from pathlib import Path
from immunogate.basis import Eigenbasis
from immunogate.networks.recognisers import recogniser_spec
from immunogate.structs import PIXELS
from immunogate.training.purifier.settings import read_settings
from immunogate.training.purifier.trainer import Trainer

def peak(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

torch.set_num_threads(1)
draw = np.random.default_rng(0)
rows = draw.standard_normal((1500, PIXELS), np.float32) / np.float32(PIXELS**0.5)  # orthonormal or not, as large
basis = Eigenbasis(np.zeros(PIXELS, np.float32), rows, np.ones(1500, np.float32), 1600.0, 2000)
spec = recogniser_spec("mobilefacenet")
faces = torch.from_numpy(draw.uniform(-1, 1, (8, PIXELS)).astype(np.float32))
settings = read_settings(None, {"paper_exact": True, "batch": 4})
before = peak("VmRSS")
trainer = Trainer(basis, spec.build(), spec, faces, settings)
values = trainer.take_step()
print(json.dumps({"grown": peak("VmHWM") - before, "components": trainer.averaged.components,
                  "clones": settings.clones, "architecture": settings.architecture, "total": values["total"]}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_25_clones_of_4_faces_over_1500_eigenfaces_fit_in_two_gigabytes() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["components"], found["clones"], found["architecture"]) == (1500, 25, "paper")
    assert found["total"] == found["total"]
    assert 300 << 20 < found["grown"] < LIMIT, f"{found['grown'] / 2**20:.0f} MiB"
