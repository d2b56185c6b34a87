"""A cold start, part by part: a process of its own starts as a gate does and says when each part was done.

``python -m immunogate.cli.profile_cold`` reads {"started_ns", "bundle", "setup"} as JSON and writes milliseconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

_FIRST_LINE_NS = time.monotonic_ns()
MOST_FRAMES = 100
"""Frames within which somebody has to be decided about."""


def main() -> int:
    """Start, decide once, report."""
    from immunogate.errors import ImmunogateError

    asked = json.load(sys.stdin)
    try:
        parts = cold_start(asked["started_ns"], Path(asked["bundle"]), asked["setup"])
    except ImmunogateError as error:
        print(f"immunogate: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(parts, allow_nan=False))
    return 0


def cold_start(started_ns: int, bundle_folder: Path, setup_data: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of each part, in their order, and ``total``; drawing a scene is left out of both.

    Args:
        started_ns: when whoever started this process did so, of `time.monotonic_ns`.
        bundle_folder: of the bundle.
        setup_data: of `immunogate.cli.profile_setup.Setup.to_dict`.

    Raises:
        ImmunogateError: the gate can not be opened.
        UsageError: nobody is found in the first frames.
    """
    parts = {"interpreter, command line": (_FIRST_LINE_NS - started_ns) / 1e6}
    before = time.monotonic_ns()
    from immunogate.bundle import open_bundle
    from immunogate.cli.profile_setup import Setup
    from immunogate.errors import UsageError
    from immunogate.runtime.chain import open_chain  # noqa: F401 - its import is what is timed
    from immunogate.runtime.pipeline import Gate  # noqa: F401 - likewise
    from immunogate.runtime.profile.recorder import Recorder
    from immunogate.runtime.profile.spans import listening
    from immunogate.runtime.runners import onnx  # noqa: F401 - likewise

    parts["imports"] = _since(before)
    before = time.monotonic_ns()
    setup, recorder = Setup.of_dict(setup_data), Recorder()
    with listening(recorder):
        bundle = open_bundle(bundle_folder)
        chain = setup.open_chain(bundle)
        gate = setup.open_gate(bundle, chain)
    opening = {one.path: one.ms for one in recorder.spans() if "/" not in one.path}
    parts |= opening
    parts["open the rest"] = _since(before) - sum(opening.values())
    pictures = setup.pictures()
    with chain:
        before = time.monotonic_ns()
        with setup.open_camera(pictures) as camera:
            first = next(camera, None)
            parts["first frame"] = _since(before)
            before, frame = time.monotonic_ns(), first
            for _ in range(MOST_FRAMES):
                if frame is None or gate.process(frame).decisions:
                    break
                frame = next(camera, None)
            else:
                frame = None
            parts["first decision"] = _since(before)
    if frame is None:
        raise UsageError("no face was found in the first frames, so there was no first decision to time")
    return {**parts, "total": sum(parts.values())}


def _since(before_ns: int) -> float:
    return (time.monotonic_ns() - before_ns) / 1e6


if __name__ == "__main__":
    sys.exit(main())
