"""immunogate: a face gate that purifies every face with its own antibody before recognising it.

The import is light on purpose: it loads neither OpenCV nor ONNX Runtime nor torch. Use the rooms by name, for
example ``from immunogate.runtime.pipeline import Gate``.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("immunogate")
except PackageNotFoundError:  # a source tree on the path that was never installed
    __version__ = "0+unknown"
