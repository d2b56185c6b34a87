"""One gate for each of several cameras, on one chain: in turn, and their faces recognised together."""

from __future__ import annotations

import time
from collections.abc import Mapping

from immunogate.runtime.camera.several import Cameras
from immunogate.runtime.chain import FaceChain
from immunogate.runtime.pipeline import Begun, FrameResult, Gate, recognise_together
from immunogate.structs import Frame

BUDGET_SHARE = 0.25
"""Part of the longest age of a decision that the first frame of a round may spend on waiting for the others."""


class Gates:
    """The gates of several cameras.

    Args:
        gates: by the camera's name; they share ``chain``.
        chain: detector, purifier, recogniser.
        budget_ms: age of a round's oldest frame beyond which no further frame is added to it, in milliseconds.
    """

    def __init__(self, gates: Mapping[str, Gate], chain: FaceChain, budget_ms: float) -> None:
        self._gates = gates
        self._chain = chain
        self._budget_ns = budget_ms * 1e6

    def round(self, first: Frame, cameras: Cameras) -> list[FrameResult]:
        """Decide about a frame, and about those of other cameras that are there meanwhile.

        Each further frame is taken from its camera just before its faces are sought, so it is the newest.

        Returns:
            One result for each frame, in the order in which they were taken.
        """
        begun: list[Begun] = []
        frame: Frame | None = first
        while frame is not None:
            begun.append(self._gates[frame.camera].begin(frame))
            oldest = min(one.frame.captured_ns for one in begun)
            if time.monotonic_ns() - oldest > self._budget_ns:
                break
            frame = cameras.next({one.frame.camera for one in begun}, wait=False)
        recognise_together(self._chain, begun)
        return [one.gate.finish(one) for one in begun]
