from __future__ import annotations

import subprocess
import sys

import pytest

MODULES = ("", ".checkpoint", ".recognisers", ".purifier")

IMPORT_WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # what Python itself does for a module that must not be found
from immunogate.errors import MissingExtraError
try:
    import immunogate.networks{module}
except MissingExtraError as error:
    assert "torch" in error.what and "immunogate[export]" in error.mend, error
    sys.exit(0)
sys.exit("imported without torch")
"""


@pytest.mark.parametrize("module", MODULES)
def test_without_torch_the_import_names_the_extra(module: str) -> None:
    code = IMPORT_WITHOUT_TORCH.replace("{module}", module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
