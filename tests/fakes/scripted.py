"""A FAKE detector that finds what a test puts down."""

from __future__ import annotations

from immunogate.runtime.detect import Detector
from immunogate.runtime.upright import VIEW
from immunogate.structs import Faces, Pixels


class ScriptedDetector(Detector):
    """Gives what the test put down; an exception is raised. It finds nothing in turned views, so landmarks stay."""

    def __init__(self) -> None:
        self.next: Faces | Exception = Faces.none()

    def detect(self, pixels: Pixels) -> Faces:
        if pixels.shape[:2] == (VIEW, VIEW):
            return Faces.none()
        if isinstance(self.next, Exception):
            raise self.next
        return self.next
