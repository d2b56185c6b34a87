"""A cold start, part by part: a process of its own starts as a gate does and says when each part was done.

``python -m immunogate.cli.profile_cold`` reads {"started_ns", "bundle", "setup"} as JSON and writes milliseconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from immunogate.runtime.camera import Camera
    from immunogate.runtime.pipeline import Gate

_FIRST_LINE_NS = time.monotonic_ns()
MOST_FRAMES, LONGEST_MS = 100, 5000.0
"""Frames and time within which a start waits for somebody to decide about."""


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
    """Milliseconds of each part, in their order; drawing a scene is left out.

    Args:
        started_ns: when whoever started this process did so, of `time.monotonic_ns`.
        bundle_folder: of the bundle.
        setup_data: of `immunogate.cli.profile_setup.Setup.to_dict`.

    Raises:
        ImmunogateError: the gate or the source can not be opened.
    """
    parts = {"interpreter, command line": (_FIRST_LINE_NS - started_ns) / 1e6}
    before = time.monotonic_ns()
    from immunogate.bundle import open_bundle
    from immunogate.cli.profile_setup import Setup
    from immunogate.runtime.chain import open_chain  # noqa: F401 - its import is what is timed
    from immunogate.runtime.pipeline import FrameResult  # noqa: F401 - likewise
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
            parts |= _first_look(gate, camera, before)
    return parts


def _first_look(gate: Gate, camera: Camera, before: int) -> dict[str, float]:
    """The first frame, and where it takes more than one, how long it takes until somebody is decided about."""
    frame = next(camera, None)
    parts = {"first frame": _since(before)}
    if frame is None:
        return parts
    before = time.monotonic_ns()
    decided = bool(gate.process(frame).decisions)
    parts["first work"] = _since(before)
    before = time.monotonic_ns()
    for _ in range(MOST_FRAMES):
        frame = None if decided or _since(before) > LONGEST_MS else next(camera, None)
        if frame is None:
            break
        decided = bool(gate.process(frame).decisions)
    if decided:  # nobody may be there; then the start ends with the first frame
        parts["until a decision"] = _since(before)
    return parts


def _since(before_ns: int) -> float:
    return (time.monotonic_ns() - before_ns) / 1e6


if __name__ == "__main__":
    sys.exit(main())
