"""The torch definitions of every network, with the key names of their public checkpoints.

Importing anything from here needs torch and says so where it is missing; nothing of the run-time does.
"""

from __future__ import annotations

from importlib.util import find_spec

from immunogate.errors import MissingExtraError

# The one guard for the whole package: Python runs this file before any module in it.
if find_spec("torch") is None:
    raise MissingExtraError("torch", "export")
