"""``immunogate demo --real``: the whole journey on real faces and a real clip, with the commands it runs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from immunogate.cli.commands import do_command, save_faces
from immunogate.errors import UsageError
from immunogate.files import find_data

ALIGNED = "faces/lfw_dev_aligned_112.npz"
RECOGNISER = "models/mobilefacenet_casia_112x96.pt"
DETECTOR = "models/face_detection_yunet_2023mar.onnx"
CLIP_OF_ONE = "video/head-pose-face-detection-male.gif"
CLIP_OF_TWO = "video/head-pose-face-detection-female-and-male.gif"
ENROLLED_FRAMES = (0, 10, 20, 30, 40, 50)
PERSON = "the man"
COMPONENTS = 1500
SPLIT_SEED = 1


def run(arguments: argparse.Namespace) -> int:
    """Run the journey and end with a picture."""
    data = find_data()
    if data is None:
        raise UsageError(
            "the demo on real faces needs the development data, and it is not here",
            "Set IMMUNOGATE_DATA to its folder, or leave --real out",
        )
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    bundle, gallery = out / "bundle", out / "gallery.db"
    if arguments.fresh or not (bundle / "manifest.json").is_file():
        _make_bundle(data, out)
    do_command("verify", bundle, "--faces", data / ALIGNED, "--count", "32")
    do_command("inspect", bundle)
    gallery.unlink(missing_ok=True)
    _write_frames(data / CLIP_OF_ONE, out / "faces" / PERSON)
    do_command("enroll", "--bundle", bundle, "--gallery", gallery, out / "faces")
    decisions = out / "decisions.jsonl"
    with decisions.open("w", encoding="utf-8") as stream:
        do_command(
            *("run", "--bundle", bundle, "--gallery", gallery, "--source", data / CLIP_OF_TWO, "--json"),
            *("--annotate", out / "annotated.mp4", "--summary", out / "summary.json"),
            stdout=stream,
        )
    return _report(out, bundle, decisions)


def _make_bundle(data: Path, out: Path) -> None:
    """Fit on some people, set thresholds on others."""
    from immunogate.faces_file import identity_split, load_aligned_faces

    faces = load_aligned_faces(data / ALIGNED)
    assert faces.identities is not None
    halves = identity_split(faces.identities, SPLIT_SEED, 0.3)
    for name, mask in zip(("fit", "calibrate"), halves, strict=True):
        save_faces(faces.take(mask), out / f"{name}.npz")
    do_command("train", "basis", out / "fit.npz", "--components", COMPONENTS, "--out", out / "basis.npz")
    do_command(
        *("export", "--basis", out / "basis.npz", "--recogniser", data / RECOGNISER),
        *("--recogniser-arch", "mobilefacenet", "--detector", data / DETECTOR, "--out", out / "bundle"),
        *("--calibrate", out / "calibrate.npz", "--overwrite"),
    )


def _write_frames(clip: Path, folder: Path) -> None:
    """Some frames of a clip as pictures to enroll."""
    import cv2

    from immunogate.runtime.camera import open_camera

    folder.mkdir(parents=True, exist_ok=True)
    with open_camera(str(clip)) as camera:
        for frame in camera:
            if frame.index in ENROLLED_FRAMES:
                cv2.imwrite(str(folder / f"frame{frame.index:02d}.png"), frame.pixels)


def _report(out: Path, bundle: Path, decisions: Path) -> int:
    from immunogate.bundle import open_bundle
    from immunogate.cli.demo_real_picture import draw

    lines = [json.loads(line) for line in decisions.read_text(encoding="utf-8").splitlines()]
    threshold = open_bundle(bundle).calibration().at(1e-3).threshold
    draw(out / "annotated.mp4", lines, threshold, out / "demo.png")
    outcomes: dict[int, set[str]] = {}
    for line in lines:
        outcomes.setdefault(line["track"], set()).add(line["outcome"])
    allowed = sorted(track for track, seen in outcomes.items() if "allow" in seen)
    print(f"\n{len(outcomes)} faces were followed; allowed: face {', '.join(map(str, allowed)) or 'none'}")
    print(f"look at: {out / 'demo.png'}, {out / 'annotated.mp4'}, {decisions}")
    return 0
