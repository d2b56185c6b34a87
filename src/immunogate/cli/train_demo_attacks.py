"""``immunogate train demo-attacks``: the noise that the demo lays over faces."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import add_bundle, add_json, opened_bundle, print_json, progress
from immunogate.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from immunogate.demo.noise import Noise
    from immunogate.demo.scene import WalkUp
    from immunogate.networks.attacks import Embed
    from immunogate.runtime.chain import FaceChain
    from immunogate.structs import Floats
    from immunogate.training.demo_attacks import AttackSettings, SeenFaces

MOST_THREADS = 64
AGREEMENT = 0.999
"""Least cosine of the checkpoint's and the bundle's embedding of the same face."""


def add_parser(parts: Any) -> None:
    """Add the command to the parts of ``immunogate train``."""
    parser = parts.add_parser(
        "demo-attacks",
        help="the noise that the demo shows",
        description="Compute the adversarial noise of immunogate demo against a bundle's bare recogniser. It is bound "
        "to that recogniser's hash and has to be made anew for another one.",
    )
    add_bundle(parser)
    parser.add_argument("--recogniser", type=Path, required=True, help="checkpoint the bundle was exported from")
    parser.add_argument("--recogniser-arch", required=True, metavar="NAME", help="its architecture, as for export")
    parser.add_argument("--out", type=Path, help="where to write (left out: into the package, where the demo looks)")
    parser.add_argument("--levels", type=int, default=8, help="largest change of a pixel in grey levels (default 8)")
    parser.add_argument("--frames", type=int, default=72, help="of each walk-up (default 72)")
    parser.add_argument("--pieces", type=int, default=9, help="pieces of noise over a walk-up (default 9)")
    parser.add_argument("--steps", type=int, default=60, help="gradient steps for each piece (default 60)")
    parser.add_argument("--batch", type=int, default=4, help="frames in a step (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default 0)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look, attack, write, and say what the noise does."""
    from immunogate.demo.gates import enroll, limits_of
    from immunogate.demo.noise import SHIPPED, Perturbations, save_perturbations
    from immunogate.demo.portraits import enrolled_person, stranger
    from immunogate.demo.scene import EDITION, WalkUp
    from immunogate.runtime.chain import open_chain
    from immunogate.training.demo_attacks import AttackSettings

    numbers = {name: getattr(arguments, name) for name in ("levels", "pieces", "steps", "batch", "seed")}
    settings = AttackSettings(**numbers)
    bundle = opened_bundle(arguments.bundle)
    limits, embed = limits_of(bundle), _embedder(arguments)
    walks = {
        name: WalkUp(person, arguments.frames)
        for name, person in (("dodge", enrolled_person()), ("impersonate", stranger()))
    }
    noise, effect = {}, {}
    with _torch_threads(arguments.threads), open_chain(bundle) as chain:
        template = enroll(chain, walks["dodge"].portrait).raw
        for name, walk in walks.items():
            noise[name] = _attack(chain, embed, walk, template, name, settings)
            effect[name] = _effect(chain, walk, noise[name], template, limits.undefended, name)
    out = arguments.out or SHIPPED
    sha256 = bundle.manifest.files[bundle.manifest.recogniser.file].sha256
    save_perturbations(out, Perturbations(sha256, EDITION, **noise))
    _report(arguments, out, effect, settings)
    return 0


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Torch on so many threads, and then on as many as before.

    Raises:
        UsageError: the number is out of range.
    """
    import torch

    if not 1 <= count <= MOST_THREADS:
        raise UsageError(f"--threads must be in 1 .. {MOST_THREADS}, got {count}")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _attack(
    chain: FaceChain, embed: Embed, walk: WalkUp, template: Floats, name: str, settings: AttackSettings
) -> Noise:
    """The noise of one act."""
    from immunogate.training.demo_attacks import find_noise

    faces = _look(chain, walk, name)
    _expect_agreement(chain, embed, faces)

    def watch(pieces: range) -> Iterator[int]:
        return progress(pieces, name, len(pieces))

    return find_noise(embed, faces, template, name == "impersonate", settings, watch)


def _embedder(arguments: argparse.Namespace) -> Embed:
    """The checkpoint as a differentiable function of (B, D) faces."""
    from immunogate.networks.frozen import frozen
    from immunogate.networks.recognisers import load_recogniser
    from immunogate.structs import CROP_SIZE

    network, spec = load_recogniser(arguments.recogniser, arguments.recogniser_arch)
    bare = frozen(network)
    return lambda faces: bare(spec.prepare(faces.reshape(-1, 1, CROP_SIZE, CROP_SIZE)))


def _look(chain: FaceChain, walk: WalkUp, name: str, noise: Noise | None = None) -> SeenFaces:
    """Every frame of a walk-up as the gate crops it."""
    import numpy as np

    from immunogate.demo.noise import paste, piece_of
    from immunogate.runtime.align import align, similarity_to_template
    from immunogate.runtime.upright import upright
    from immunogate.training.demo_attacks import SeenFaces

    crops, laid, seen = [], [], []
    for index in progress(range(walk.frames), f"looking at {name}", walk.frames):
        pixels, to_face = walk.frame(index), similarity_to_template(walk.landmarks(index))
        if noise is not None:
            pixels = paste(pixels, noise[piece_of(index, walk.frames, len(noise))], to_face)
        faces = chain.detector.detect(pixels)
        if len(faces) == 0:
            raise UsageError(f"the bundle's detector finds no face in frame {index} of {walk.portrait.name}")
        landmarks = upright(chain.detector, pixels, faces.landmarks[faces.largest()])
        crops.append(align(pixels, landmarks))
        laid.append(to_face)
        seen.append(similarity_to_template(landmarks))
    return SeenFaces(np.stack(crops), np.stack(laid), np.stack(seen))


def _expect_agreement(chain: FaceChain, embed: Embed, faces: SeenFaces) -> None:
    """The checkpoint must be the bundle's recogniser.

    Raises:
        CheckpointError: it embeds a face otherwise.
    """
    import torch

    from immunogate.faces_file import faces_from_pixels

    planes = faces_from_pixels(faces.crops[:1])
    with torch.no_grad():
        own = torch.nn.functional.normalize(embed(torch.from_numpy(planes)), dim=1).numpy()[0]
    theirs = chain.recogniser.embed(planes)[0]
    if own.shape != theirs.shape or not float(own @ theirs) >= AGREEMENT:
        raise CheckpointError(
            "the checkpoint and the bundle's recogniser embed the same face differently",
            "Give the checkpoint that the bundle was exported from",
        )


def _effect(
    chain: FaceChain, walk: WalkUp, noise: Noise, template: Floats, threshold: float, name: str
) -> dict[str, Any]:
    """What the noise does to the bare recogniser through the real frames."""
    import numpy as np

    from immunogate.faces_file import faces_from_pixels

    crops = _look(chain, walk, f"the result of {name}", noise).crops
    similarity = chain.recogniser.embed(faces_from_pixels(crops)) @ template
    matched = int((similarity >= threshold).sum())
    return {"similarity": round(float(np.median(similarity)), 4), "matched": matched, "frames": len(crops)}


def _report(arguments: argparse.Namespace, out: Path, effect: dict[str, Any], settings: AttackSettings) -> None:
    if arguments.json:
        print_json({"out": str(out), "bytes": out.stat().st_size, "levels": settings.levels, **effect})
        return
    print(f"{out}: {out.stat().st_size:,} bytes, at most {settings.levels} grey levels")
    for name, found in effect.items():
        print(f"  {name:<12}the bare recogniser sees a similarity of {found['similarity']:+.2f} (median) and matches "
              f"in {found['matched']} of {found['frames']} frames")  # fmt: skip
    print("next: immunogate demo", file=sys.stderr)
