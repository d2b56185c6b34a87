"""What ``immunogate evaluate`` attacks: the bundle's own chains in every mode, beside their torch twin."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.calib.robustness.deployed import Answer, Deployed, Placement
    from immunogate.calib.robustness.gates import Gate
    from immunogate.networks.twin import TorchTwin
    from immunogate.runtime.chain import FaceChain
    from immunogate.structs import Pixels

DRAWN_OR_SOFT = ("expected", "threshold", "sample", "select")


def keys_of(bundle: Bundle) -> tuple[str, ...]:
    """The configurations that a bundle has, its own first."""
    from immunogate.calib.robustness.protocols import BASELINES

    purifier = bundle.manifest.purifier
    own = purifier.mode
    baselines = [key for key in BASELINES if key != "fixed" or (own != "fixed" and purifier.top_k >= 1)]
    modes = [mode for mode in DRAWN_OR_SOFT if bundle.manifest.analyzer is not None and mode != own]
    return ("bundle", *baselines, *modes)


def chosen_keys(bundle: Bundle, words: str | None, usual: tuple[str, ...]) -> tuple[str, ...]:
    """The configurations asked for, in their order; the bundle's own is always among them.

    Raises:
        UsageError: a word names none that this bundle has.
    """
    there = keys_of(bundle)
    wanted = set(usual or there) if words is None else {word.strip() for word in words.split(",") if word.strip()}
    wanted = {"bundle" if word == bundle.manifest.purifier.mode else word for word in wanted}
    if unknown := sorted(wanted - set(there)):
        if words is None:  # a usual one that this bundle has not, as fixed where it is the bundle's own
            wanted -= set(unknown)
        else:
            raise UsageError(f"--modes {unknown[0]!r}: this bundle has {', '.join(there)}", "Choose among these")
    return tuple(key for key in there if key in wanted | {"bundle"})


def opened_gates(
    stack: ExitStack, bundle: Bundle, twin: TorchTwin, keys: tuple[str, ...], seed: int, backend: str, runner: str
) -> tuple[dict[str, Gate], dict[str, str]]:
    """Open every chain that is needed; what runs the networks is said once.

    Returns:
        Gates by key, ``none`` and ``bundle`` among them, and what runs each network.
    """
    from immunogate.calib.robustness.filters import FILTERS
    from immunogate.calib.robustness.gates import bare_gate, filter_gate, fixed_gate, mode_gate
    from immunogate.cli.common import say_runners
    from immunogate.runtime.chain import antibody_settings, open_chain

    def opened(mode: str | None = None) -> FaceChain:
        return stack.enter_context(open_chain(bundle, mode=mode, backend=backend, runner=runner))

    entry, size = bundle.manifest.purifier, bundle.manifest.recogniser.embedding_dimension
    own = opened()
    kinds = say_runners(own, runner)
    bare = deployed_bare(own, size)
    gates = {"none": bare_gate(twin, bare)}
    for key in keys:
        if key in FILTERS:
            gates[key] = filter_gate(key, twin, bare)
        elif key == "fixed":
            gates[key] = fixed_gate(twin, entry.top_k, deployed(opened("fixed"), size))
        elif key != "none":
            mode = None if key == "bundle" else key
            chain = own if mode is None else opened(mode)
            gates[key] = mode_gate(twin, antibody_settings(entry, mode), deployed(chain, size), seed, own=mode is None)
    order = ("none", *(key for key in keys if key not in ("none", "bundle")), "bundle")
    return {key: gates[key] for key in order}, kinds


def deployed(chain: FaceChain, dimension: int) -> Deployed:
    """A chain as something to ask."""
    from immunogate.calib.robustness.deployed import Answer

    def seen(crops: Pixels, frames: list[int], numbers: list[int]) -> Answer:
        found = chain.recognise(crops, frames, numbers)
        return Answer(found.purified, found.raw, np.ascontiguousarray(found.faces[:, 0]), found.spreads)

    return careful(seen, dimension, purifies=True)


def deployed_bare(chain: FaceChain, dimension: int) -> Deployed:
    """The chain's recogniser on pictures as they come."""
    from immunogate.calib.robustness.deployed import Answer
    from immunogate.faces_file import faces_from_pixels

    def seen(crops: Pixels, frames: list[int], numbers: list[int]) -> Answer:
        return Answer(chain.recogniser.embed(faces_from_pixels(crops)))

    return careful(seen, dimension, purifies=False)


def careful(gate: Deployed, dimension: int, *, purifies: bool) -> Deployed:
    """Where a batch is refused for one face's sake each face is asked about alone; one that is refused gives NaN.

    Args:
        gate: raises ValueError where a network gives what it must not.
        dimension: of its embeddings.
        purifies: whether its answers hold raw embeddings and purified faces.
    """
    from immunogate.calib.robustness.deployed import Answer, asked
    from immunogate.structs import PIXELS

    nothing = np.full((1, dimension), np.nan, np.float32)
    grey, unknown = np.zeros((1, PIXELS), np.float32), np.full(1, np.nan, np.float32)
    refused = Answer(nothing, nothing, grey, unknown) if purifies else Answer(nothing)

    def alone(crops: Pixels, frames: list[int], numbers: list[int]) -> Answer:
        try:
            return gate(crops, frames, numbers)
        except ValueError:
            return refused

    def seen(crops: Pixels, frames: list[int], numbers: list[int]) -> Answer:
        try:
            return gate(crops, frames, numbers)
        except ValueError:
            return asked(alone, crops, frames, numbers, batch=1)

    return seen


def placement() -> Placement:
    """The gate's own alignment."""
    from immunogate.calib.robustness.deployed import Placement
    from immunogate.runtime.align import TEMPLATE, align, similarity_to_large_crop

    return Placement(TEMPLATE, similarity_to_large_crop, align)


def frozen_twin(bundle: Bundle, named: dict[str, Path | None]) -> TorchTwin:
    """The twin with a recogniser that is quick to differentiate, and the eigenfaces as they are deployed."""
    from immunogate.cli.twin import twin_of
    from immunogate.networks.frozen import frozen
    from immunogate.networks.twin import UnitEmbedding

    twin = twin_of(bundle, named, own_basis=True)
    twin.recogniser = UnitEmbedding(frozen(twin.recogniser.recogniser)).eval()
    return twin.requires_grad_(False)
