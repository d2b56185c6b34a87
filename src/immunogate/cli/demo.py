"""``immunogate demo``: two gates watch the same walk-ups, one of them defended."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.common import add_bundle, add_json, opened_bundle, print_json, progress, step
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.demo.acts import Played
    from immunogate.demo.gates import Limits


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "demo",
        help="see what noise does to two gates, one of them defended",
        description="Four acts on frames drawn from two public-domain portraits: the enrolled person and a stranger "
        "walk up, each without and with adversarial noise, to a gate with purification and to one without. Ends "
        "with a picture, a video and status 0 only if all acts went as they should. With --real: the whole journey "
        "from checkpoints on real faces and a real clip, from the development data.",
    )
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="where to write (default out/demo)")
    add_bundle(parser)
    parser.add_argument("--frames", type=int, default=72, help="of each walk-up (default 72)")
    parser.add_argument("--no-video", action="store_true", help="write the picture only")
    add_json(parser)
    real = parser.add_argument_group("on real faces")
    real.add_argument("--real", action="store_true", help="use the development data (IMMUNOGATE_DATA, ../shared/data)")
    real.add_argument("--fresh", action="store_true", help="make eigenbasis and bundle anew even if they are there")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Play the acts, say what was measured, draw it."""
    if arguments.real:
        from immunogate.cli import demo_real

        if arguments.bundle is not None or arguments.json:
            raise UsageError("--real makes its own bundle and prints its own commands", "Leave --bundle and --json out")
        return demo_real.run(arguments)
    if arguments.fresh:
        raise UsageError("--fresh belongs to --real", "Leave it out")
    from immunogate.demo.noise import load_perturbations, noise_file
    from immunogate.demo.verdicts import NO_LIVENESS, ONE_PHOTO, to_dict, to_text

    bundle = opened_bundle(arguments.bundle)
    manifest = bundle.manifest
    noise = load_perturbations(noise_file(), manifest.files[manifest.recogniser.file].sha256)
    acts, limits, name = _play(bundle, {True: noise.dodge, False: noise.impersonate}, arguments.frames)
    if arguments.json:
        print_json(to_dict(acts, limits, name, noise.levels()))
    else:
        print(to_text(acts, limits, name, noise.levels()))
        print(f"\n{ONE_PHOTO}\n{NO_LIVENESS}\n", flush=True)
    _write(arguments, acts, limits, name, noise.levels(), manifest.model_id)
    return 0 if all(played.as_hoped() for played in acts) else 1


def _play(bundle: Bundle, noise: dict[bool, Any], frames: int) -> tuple[list[Played], Limits, str]:
    """All acts; ``noise`` by whether the enrolled person is expected."""
    from immunogate.demo.acts import ACTS, play
    from immunogate.demo.gates import enroll, limits_of
    from immunogate.demo.portraits import enrolled_person, stranger
    from immunogate.demo.scene import WalkUp
    from immunogate.runtime.chain import open_chain

    walks = {True: WalkUp(enrolled_person(), frames), False: WalkUp(stranger(), frames)}
    limits = limits_of(bundle)
    acts = []
    with open_chain(bundle) as chain:
        known = enroll(chain, walks[True].portrait)
        for act in ACTS:
            watched = partial(progress, what=f"act {act.number} of {len(ACTS)}", total=frames)
            pieces = noise[act.expected] if act.attacked else None
            acts.append(play(act, walks[act.expected], pieces, chain, known, limits, bundle, watched))
    return acts, limits, known.name


def _write(
    arguments: argparse.Namespace, acts: list[Played], limits: Limits, name: str, levels: int, model: str
) -> None:
    from immunogate.demo.picture import draw
    from immunogate.demo.verdicts import NO_LIVENESS, ONE_PHOTO
    from immunogate.demo.video import write_video

    picture, video = arguments.out / "demo.png", arguments.out / "demo.mp4"
    credits = "Portraits: Eileen Collins (NASA) and Grace Hopper (U.S. Navy), both in the public domain."
    with step("drawing"):
        draw(acts, limits, name, levels, f"{ONE_PHOTO}\n{NO_LIVENESS}\n{credits} Bundle: {model}.", picture)
        if not arguments.no_video:
            write_video(acts, limits, video)
    print(f"look at: {picture}{'' if arguments.no_video else f', {video}'}", file=sys.stderr)
