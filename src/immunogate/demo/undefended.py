"""The gate of the demo that is not defended: the same chain, but what is recognised is the face as it came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from immunogate.faces_file import faces_from_pixels
from immunogate.runtime.chain import FaceChain, Recognised
from immunogate.runtime.clock import StageClock
from immunogate.structs import Antibodies


class UndefendedChain(FaceChain):
    """Detector and recogniser of another chain, which stays the owner, without its purifier.

    Args:
        chain: the defended one.
    """

    def __init__(self, chain: FaceChain) -> None:
        super().__init__(chain.detector, chain.purifier, chain.recogniser)

    def recognise(
        self,
        crops: npt.NDArray[np.uint8],
        frames: list[int],
        numbers: list[int],
        clock: StageClock | None = None,
        *,
        each: bool = False,
    ) -> Recognised:
        """Recognise B crops; the "purified" embeddings and faces are those that came. See `FaceChain.recognise`."""
        clock = clock or StageClock()
        faces = faces_from_pixels(crops)
        with clock.stage("recognise"):
            raw = self.recogniser.embed(faces)
        nothing = Antibodies("none", 0, 0, np.ones((len(faces), 1, 1), np.float32))
        return Recognised(raw, raw, faces[:, None], nothing)

    def close(self) -> None:
        """Nothing of its own to stop."""
