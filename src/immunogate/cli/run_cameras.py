"""The cameras of ``immunogate run``: named by flags or a file of settings, each with what is set for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from immunogate.cli.interrupt import StopRequest
from immunogate.config import CameraSettings, load_config
from immunogate.errors import UsageError

if TYPE_CHECKING:
    from immunogate.runtime.audit.settle import Settlement
    from immunogate.runtime.camera.patience import Patience
    from immunogate.runtime.chain import FaceChain
    from immunogate.runtime.decide import Policy
    from immunogate.runtime.detect import Detector
    from immunogate.runtime.gates import Gates
    from immunogate.runtime.summary import Summary

USUAL: Mapping[str, Any] = {
    "fmr": 1e-3,
    "margin": 0.05,
    "confirm_frames": 3,
    "max_decision_age_ms": 500.0,
    "backend": "cpu",
    "runner": "cpu",
}
"""What holds where neither a flag nor a file says otherwise."""

DETECTOR_SIZE = 640
_LIMITS = ("threshold", "alarm")
_OF_ALL_CAMERAS = (*_LIMITS, "detector_size", "rtsp_transport")
"""Flags that hold for every camera, whatever a file says."""


def add_cameras(parser: argparse.ArgumentParser, sources: str) -> None:
    """The flags that name cameras."""
    parser.add_argument("--source", action="append", metavar="URI", help=f"{sources}. May be given several times")
    parser.add_argument("--camera", action="append", metavar="NAME=URI", help="the same with a name for decisions")
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help="settings of the gate and its cameras")
    parser.add_argument(
        "--rtsp-transport", choices=("tcp", "udp"), help="how RTSP brings pictures (default tcp, which loses none)"
    )


def settled(arguments: argparse.Namespace) -> tuple[dict[str, CameraSettings], bool]:
    """The cameras by name, and whether it is a single source without a name or a file.

    What a flag says comes before what the file says, and that before `USUAL`; ``arguments`` are filled in so.

    Raises:
        UsageError: no camera is named, or two have one name.
        InputError: the file of settings is wrong.
    """
    cameras = _named(arguments)
    if arguments.config is not None:
        config = load_config(arguments.config)
        for warning in config.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        for one in fields(config.gate):
            if getattr(arguments, one.name) is None:
                setattr(arguments, one.name, getattr(config.gate, one.name))
        for name, camera in config.cameras.items():
            _add(cameras, name, camera)
    if not cameras:
        raise UsageError("no camera is named", "Give --source URI, --camera NAME=URI or --config FILE")
    for name, value in USUAL.items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)
    given = {name: value for name in _OF_ALL_CAMERAS if (value := getattr(arguments, name)) is not None}
    is_one = len(cameras) == 1 and bool(arguments.source)
    if arguments.annotate and not is_one:
        raise UsageError("--annotate writes the video of one --source", "Leave it out, or give one --source alone")
    return {name: replace(camera, **given) for name, camera in cameras.items()}, is_one


def _named(arguments: argparse.Namespace) -> dict[str, CameraSettings]:
    from immunogate.runtime.camera import redact

    cameras: dict[str, CameraSettings] = {}
    for uri in arguments.source or ():
        _add(cameras, redact(uri), CameraSettings(uri))
    for word in arguments.camera or ():
        name, equals, uri = word.partition("=")
        if not (name and equals and uri) or ":" in name or "/" in name:
            raise UsageError("--camera takes NAME=URI", "For instance --camera front=rtsp://10.0.0.7/main")
        _add(cameras, name, CameraSettings(uri))
    return cameras


def _add(cameras: dict[str, CameraSettings], name: str, camera: CameraSettings) -> None:
    if name in cameras:
        raise UsageError(f"two cameras are called {name!r}", "Give each a name of its own: --camera NAME=URI")
    cameras[name] = camera


def largest_detector(cameras: Mapping[str, CameraSettings]) -> int:
    """The size that the shared detector is opened for."""
    return max(map(_detector_size, cameras.values()))


def _detector_size(camera: CameraSettings) -> int:
    return DETECTOR_SIZE if camera.detector_size is None else camera.detector_size


def detectors_of(chain: FaceChain, cameras: Mapping[str, CameraSettings], opened: ExitStack) -> dict[str, Detector]:
    """Detectors, by camera, of those whose size is not the chain's own; ``opened`` closes them."""
    detectors = {}
    for name, camera in cameras.items():
        if (size := _detector_size(camera)) != largest_detector(cameras):
            detectors[name] = chain.detector_of(size)
            opened.callback(detectors[name].close)
    return detectors


def patience_of(camera: CameraSettings) -> Patience:
    """How long a camera is waited for."""
    from immunogate.runtime.camera.patience import Patience

    times = {"open_s": camera.open_timeout_s, "read_s": camera.read_timeout_s}
    return replace(Patience(), **{name: value for name, value in times.items() if value is not None})


def policies_of(
    cameras: Mapping[str, CameraSettings],
    policy_for: Callable[[argparse.Namespace], Policy],
    arguments: argparse.Namespace,
) -> dict[str, Policy]:
    """What each camera asks for before it allows; ``policy_for`` is asked once for each pair of limits."""
    known: dict[tuple[float | None, float | None], Policy] = {}
    policies = {}
    for name, camera in cameras.items():
        key = camera.threshold, camera.alarm
        if key not in known:
            known[key] = policy_for(argparse.Namespace(**vars(arguments) | dict(zip(_LIMITS, key, strict=True))))
        eyes = camera.min_eye_distance
        policies[name] = known[key] if eyes is None else replace(known[key], least_eye_distance=eyes)
    return policies


def stream_several(
    gates: Gates,
    cameras: Mapping[str, CameraSettings],
    arguments: argparse.Namespace,
    summary: Summary,
    write: Callable[..., None],
    settlements: Mapping[str, Settlement | None],
) -> None:
    """Stream cameras through their gates until all are over or somebody asks for an end.

    Each frame's decisions are settled by its camera's own settlement, where there is one, before they are told.

    Raises:
        UsageError, CameraError: an address is wrong, or no camera can be opened.
    """
    from immunogate.runtime.camera.opening import order_for
    from immunogate.runtime.camera.several import Cameras

    orders = {}
    for name, camera in cameras.items():
        patience = patience_of(camera)
        order = order_for(camera.uri, patience, fps_cap=camera.fps_cap, transport=camera.rtsp_transport)
        orders[name] = (order, patience)
    stop = StopRequest()
    with Cameras(orders) as opened:
        opened.expect_any()
        with stop.listening():
            while not stop.requested and (arguments.max_frames is None or summary.frames < arguments.max_frames):
                frame = opened.next()
                if frame is None:
                    break
                with stop.shielded():
                    for result in gates.round(frame, opened):
                        settlement = settlements[result.frame.camera]
                        if settlement is not None:
                            result = settlement.settle(result)
                        summary.add(result)
                        for decision in result.decisions:
                            write(decision, arguments.json, sys.stdout, with_camera=True)
        if stop.requested:
            print("stopped", file=sys.stderr)
        summary.cameras = opened.counts()
