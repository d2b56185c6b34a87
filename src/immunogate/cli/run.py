"""``immunogate run``: stream a camera through the gate."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from immunogate.cli.audit_flags import add_audit, check_audit, opened_settlements
from immunogate.cli.common import (
    add_backend,
    add_bundle,
    add_gallery,
    add_runner,
    chosen_gallery,
    opened_bundle,
    say_runners,
)
from immunogate.cli.interrupt import StopRequest
from immunogate.cli.run_cameras import (
    add_cameras,
    detectors_of,
    largest_detector,
    patience_of,
    policies_of,
    settled,
    stream_several,
)
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.runtime.annotate import VideoSink
    from immunogate.runtime.audit.settle import Settlement
    from immunogate.runtime.camera import Camera
    from immunogate.runtime.decide import Policy
    from immunogate.runtime.pipeline import Gate
    from immunogate.runtime.summary import Summary
    from immunogate.structs import Decision

SOURCES = (
    "camera: 0, /dev/video0, v4l2:///dev/video0, rtsp://..., csi://0, gst:PIPELINE, synthetic://; "
    "or a file: video, GIF, picture, folder of pictures"
)
ANNOTATED_RATE = 12.5
"""Frames a second of the annotated video where the source does not tell its own."""


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "run",
        help="stream a camera through the gate",
        description="Detect, align, purify, recognise, match and decide. Decisions go to stdout, one line each; a "
        "summary follows. Ctrl-C ends cleanly. A gate needs liveness detection beside this: purification is none.",
    )
    add_bundle(parser)
    add_gallery(parser)
    add_cameras(parser, SOURCES)
    parser.add_argument("--json", action="store_true", help="one JSON line a decision; the summary goes to stderr")
    parser.add_argument(
        "--annotate", type=Path, metavar="OUT.mp4", help="write a video with boxes, names, outcomes, crops"
    )
    parser.add_argument("--summary", type=Path, metavar="OUT.json", help="write the summary as JSON")
    parser.add_argument(
        "--realtime", action="store_true", help="pace a file as a camera would; late frames are skipped"
    )
    parser.add_argument("--max-frames", metavar="N", type=int, help="stop after so many frames")
    limits = parser.add_argument_group("what is asked for before a face is allowed")
    limits.add_argument(
        "--fmr",
        metavar="RATE",
        type=float,
        help="false match rate whose threshold is used (default 1e-3)",
    )
    limits.add_argument("--threshold", metavar="COSINE", type=float, help="cosine threshold instead of the bundle's")
    limits.add_argument(
        "--alarm", metavar="SCORE", type=float, help="attack score for an alarm instead of the bundle's"
    )
    limits.add_argument("--margin", metavar="COSINE", type=float, help="least distance to the runner-up (default 0.05)")
    limits.add_argument("--confirm-frames", metavar="N", type=int, help="frames that must agree (default 3)")
    limits.add_argument("--max-decision-age-ms", metavar="MS", type=float, help="older is a deny (default 500 ms)")
    add_audit(parser)
    machine = parser.add_argument_group("how it runs")
    machine.add_argument("--mode", help="inference mode instead of the bundle's; needs --threshold")
    machine.add_argument("--seed", metavar="N", type=int, help="of drawn clones, instead of the bundle's")
    add_backend(machine)
    add_runner(machine)
    machine.add_argument("--threads", metavar="N", type=int, help="threads of each stage (default: up to 4)")
    machine.add_argument(
        "--detector-size",
        metavar="PIXELS",
        type=int,
        help="longest side for the detector (default 640 pixels)",
    )
    parser.set_defaults(run=run, backend=None, runner=None)  # usual values come after those of --config


def run(arguments: argparse.Namespace) -> int:
    """Open everything, stream, summarise."""
    from immunogate.runtime.annotate import VideoSink
    from immunogate.runtime.camera import open_camera
    from immunogate.runtime.chain import antibody_settings, open_chain
    from immunogate.runtime.gallery import Gallery
    from immunogate.runtime.gates import BUDGET_SHARE, Gates
    from immunogate.runtime.pipeline import Gate
    from immunogate.runtime.summary import Summary

    if arguments.max_frames is not None and arguments.max_frames < 1:
        raise UsageError(f"--max-frames must be at least 1, got {arguments.max_frames}")
    check_audit(arguments)
    cameras, is_one = settled(arguments)
    bundle = opened_bundle(arguments.bundle)
    antibody_settings(bundle.manifest.purifier, arguments.mode, arguments.seed)  # an unknown mode is named first
    policies = policies_of(cameras, lambda own: policy_for(bundle, own), arguments)
    path = chosen_gallery(arguments.gallery)
    with Gallery(path, bundle.manifest.embedding_hash()) as gallery:
        templates = gallery.templates()
    if not templates.names:
        print(f"warning: nobody is enrolled in {path}: every face will be denied", file=sys.stderr)
    with ExitStack() as stack:
        chain = stack.enter_context(
            open_chain(
                bundle,
                mode=arguments.mode,
                seed=arguments.seed,
                threads=arguments.threads,
                longest_side=largest_detector(cameras),
                backend=arguments.backend,
                runner=arguments.runner,
            )
        )
        runners = say_runners(chain, arguments.runner)
        summary = Summary(runners=runners)
        settlements = opened_settlements(stack, arguments, bundle, chain, policies, templates)
        if is_one:
            only = next(iter(cameras.values()))
            transport, patience = only.rtsp_transport, patience_of(only)
            camera = stack.enter_context(
                open_camera(only.uri, realtime=arguments.realtime, transport=transport, patience=patience)
            )
            rate = getattr(camera, "fps", ANNOTATED_RATE)  # a recording tells its own
            video = stack.enter_context(VideoSink(arguments.annotate, rate)) if arguments.annotate else None
            (policy,), (settlement,) = policies.values(), settlements.values()
            _stream(Gate(chain, templates, policy, bundle.sha256), camera, arguments, video, summary, settlement)
        else:
            detectors = detectors_of(chain, cameras, stack)
            gates = {
                name: Gate(chain, templates, policy, bundle.sha256, detector=detectors.get(name))
                for name, policy in policies.items()
            }
            several = Gates(gates, chain, BUDGET_SHARE * arguments.max_decision_age_ms)
            stream_several(several, cameras, arguments, summary, write_decision, settlements)
    _finish(summary, arguments)
    return 0


def policy_for(bundle: Bundle, arguments: argparse.Namespace) -> Policy:
    """What to ask for: the bundle's calibration, with what the user set instead.

    Raises:
        BundleError: the bundle is not calibrated and no threshold was given.
        UsageError: another mode was asked for without a threshold.
    """
    from immunogate.runtime.decide import Policy
    from immunogate.structs import CLONE_DISAGREEMENT, CONSECUTIVE_FRAMES

    threshold, alarm = arguments.threshold, arguments.alarm
    clone_alarm = frame_alarm = None
    if arguments.mode not in (None, bundle.manifest.purifier.mode) and threshold is None:
        raise UsageError("the bundle's threshold does not hold for another mode", "Give --threshold as well")
    if threshold is None or alarm is None:
        calibration = bundle.calibration()
        if calibration.status == "provisional":
            print("warning: the bundle's threshold is provisional; see immunogate calibrate", file=sys.stderr)
        threshold = calibration.at(arguments.fmr).threshold if threshold is None else threshold
        alarm = calibration.alarm if alarm is None else alarm
        if calibration.alarms is not None and arguments.mode in (None, bundle.manifest.purifier.mode):
            clone_alarm = calibration.alarms.limit(CLONE_DISAGREEMENT)
            frame_alarm = calibration.alarms.limit(CONSECUTIVE_FRAMES)
    return Policy(
        threshold=threshold,
        alarm=alarm,
        margin=arguments.margin,
        confirm_frames=arguments.confirm_frames,
        max_decision_age_ms=arguments.max_decision_age_ms,
        clone_alarm=clone_alarm,
        frame_alarm=frame_alarm,
    )


def _stream(
    gate: Gate,
    camera: Camera,
    arguments: argparse.Namespace,
    video: VideoSink | None,
    summary: Summary,
    settlement: Settlement | None,
) -> None:
    stop = StopRequest()
    with stop.listening():
        for frame in _with_progress(camera):
            with stop.shielded():
                result = gate.process(frame)
                if settlement is not None:
                    result = settlement.settle(result)
                summary.add(result)
                for decision in result.decisions:
                    write_decision(decision, arguments.json, sys.stdout)
                if video is not None:
                    video.write(result)
            if stop.requested or summary.frames == arguments.max_frames:
                break
    if stop.requested:
        print("stopped", file=sys.stderr)


def _with_progress(camera: Camera) -> Iterator[Any]:
    """Frames, with a bar on stderr for a file, where results do not go to the same terminal."""
    if camera.expected_frames is None or sys.stdout.isatty():
        return iter(camera)
    from immunogate.cli.common import progress

    return progress(camera, camera.name, camera.expected_frames)


def write_decision(decision: Decision, as_json: bool, stream: TextIO, *, with_camera: bool = False) -> None:
    """One line, flushed, so that whoever listens hears of it at once; JSON always names the camera."""
    if as_json:
        line = decision.to_json()
    else:
        who = decision.person or "nobody"
        similarity = "" if decision.similarity is None else f"similarity {decision.similarity:.3f}"
        line = (
            f"frame {decision.frame:>5}  face {decision.track:>3}  {decision.outcome.upper():<6}{decision.reason:<14}"
            f"{who:<20}{similarity}"
        )
        line = f"{decision.camera:<16}  {line}" if with_camera else line
    stream.write(line + "\n")
    stream.flush()


def _finish(summary: Summary, arguments: argparse.Namespace) -> None:
    print("\n" + summary.to_text(), file=sys.stderr if arguments.json else sys.stdout)
    if arguments.summary:
        from immunogate.files import write_whole

        text = json.dumps(summary.to_dict(), indent=2) + "\n"
        write_whole(arguments.summary, lambda path: path.write_text(text, encoding="utf-8"))
    if arguments.annotate:
        print(f"annotated video: {arguments.annotate}", file=sys.stderr)
