"""Every parser that a stranger can feed, with whole inputs to begin from and what has to hold of any answer."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from immunogate.basis import Eigenbasis, basis_from_bytes, save_basis
from immunogate.bundle import SIGNATURE_NAME, open_bundle, write_manifest
from immunogate.default_models import shipped_bundle
from immunogate.engines.record import EngineRecord, Flags, Machine, Profile
from immunogate.errors import ImmunogateError
from immunogate.export.engine.onnx_facts import onnx_facts
from immunogate.faces_file import load_aligned_faces
from immunogate.keys import PRIVATE_NAME, PUBLIC_NAME, load_private_key, load_public_key, make_keys
from immunogate.manifest import MANIFEST_NAME
from immunogate.runtime.camera import open_camera, read_picture
from immunogate.runtime.camera.address import parse_address
from immunogate.runtime.camera.pixels import PIXEL_LIMIT
from immunogate.runtime.gallery import Gallery, Sample
from immunogate.runtime.runners.onnx import OnnxRunner
from immunogate.signature import BUNDLE, proven_by, signature_over, write_signature

MOST_FRAMES = 3
TOKENS = (
    b"\x00", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"[", b'{"', b'"', b"-",
    b"1e999", b"NaN", b"9" * 400, b"../", b"\n", b"\xff\xd8", b"\xff\xc0", b"PK\x01\x02", b"GIF89a",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        name: of it.
        seeds: whole inputs.
        feed: gives it one input, and asserts what must hold of whatever is accepted.
    """

    name: str
    seeds: tuple[bytes, ...]
    feed: Callable[[bytes], Any]

    def is_refused(self, data: bytes) -> bool:
        """Whether the input is refused; whatever is raised but `ImmunogateError` is a finding and goes on."""
        try:
            self.feed(data)
        except ImmunogateError:
            return True
        return False


def mutated(seeds: tuple[bytes, ...], draw: random.Random) -> bytes:
    """A whole input with up to eight changes: bits, blocks, lengths, tokens, or another input's end."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        at = draw.randrange(len(data) + 1) if draw.random() < 0.5 else draw.randrange(min(len(data), 200) + 1)
        length = draw.choice((1, 2, 4, 16, 256))
        match draw.randrange(6):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + length] = draw.randbytes(length)
            case 2:
                token = draw.choice(TOKENS)
                data[at : at + draw.choice((0, len(token)))] = token * draw.choice((1, 1, 1, 300))
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
            case _:
                data = data[:at] + bytearray(draw.choice(seeds))[at:] if draw.random() < 0.5 else data[:at]
    return bytes(data)


def all_targets(folder: Path, *, exports: bool = True) -> list[Target]:
    """All parsers; their files go into ``folder``.

    Args:
        folder: an empty one.
        exports: those of the extra export too, where it is installed.
    """
    targets = [*_bundles(folder), *_arrays(folder), *_pictures(folder), *_networks(), _gallery(folder), _addresses()]
    if exports and find_spec("torch") and find_spec("onnx"):
        targets += _exports(folder)
    return targets


def _through_file(path: Path, feed: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    def fed(data: bytes) -> Any:
        path.write_bytes(data)
        return feed(path)

    return fed


def _bundles(folder: Path) -> list[Target]:
    place, keys = folder / "bundle", folder / "keys"
    place.mkdir()
    write_manifest(place, replace(open_bundle(shipped_bundle()).manifest, provenance={"a": [1, {"b": None}]}))
    manifest = (place / MANIFEST_NAME).read_bytes()
    make_keys(keys)
    trusted = load_public_key(keys / PUBLIC_NAME)
    proof = folder / SIGNATURE_NAME
    write_signature(proof, BUNDLE, signature_over(BUNDLE, manifest, load_private_key(keys / PRIVATE_NAME)))

    def prove(path: Path) -> None:
        assert proven_by(path, BUNDLE, manifest, [trusted]) == trusted

    def prove_changed(data: bytes) -> None:
        proven_by(proof, BUNDLE, data, [trusted])
        assert data == manifest, "another manifest was taken for the signed one"

    record = EngineRecord(
        *("recogniser", "m", "0" * 64, "r.onnx", "1" * 64, "fp32", "face"), (Profile((1, 3), (2, 3), (8, 3)),), Flags(),
        Machine("10.3", "12.6", "", "8.7", "Orin", "Linux", "aarch64", ""), "2" * 64, 5, 1.5, "2026", "0.1.0",
    )  # fmt: skip
    return [
        Target("manifest", (manifest,), _through_file(place / MANIFEST_NAME, lambda _: open_bundle(place))),
        Target("signature file", (proof.read_bytes(),), _through_file(folder / "other.json", prove)),
        Target("manifest against its signature", (manifest,), prove_changed),
        Target("public key", ((keys / PUBLIC_NAME).read_bytes(),), _through_file(folder / "k.pem", load_public_key)),
        Target("engine side-car", (record.to_json().encode(),), lambda data: EngineRecord.from_json(
            data.decode("utf-8", errors="replace"), "side-car")),
    ]  # fmt: skip


def _arrays(folder: Path) -> list[Target]:
    draw = np.random.default_rng(1)
    faces, basis = io.BytesIO(), folder / "basis.npz"
    np.savez_compressed(faces, images=draw.integers(0, 256, (2, 112, 112), np.uint8), identities=np.array(["a", "b"]))
    rows = np.linalg.qr(draw.standard_normal((16, 3)))[0].T.astype(np.float32)
    values = np.array([3, 2, 1], np.float32)
    save_basis(basis, Eigenbasis(np.zeros(16, np.float32), np.ascontiguousarray(rows), values, 7.0, 10))

    def project(data: bytes) -> None:
        assert np.isfinite(basis_from_bytes(data, "basis", None).basis).all()

    return [
        Target("aligned faces", (faces.getvalue(),), _through_file(folder / "f.npz", load_aligned_faces)),
        Target("eigenbasis", (basis.read_bytes(),), project),
    ]


def _pictures(folder: Path) -> list[Target]:
    pixels = np.random.default_rng(2).integers(0, 256, (24, 40, 3), np.uint8)
    kinds = (".png", ".jpg", ".bmp", ".webp", ".tiff")
    seeds = tuple(cv2.imencode(kind, pixels)[1].tobytes() for kind in kinds)
    clip, still = folder / "clip.avi", folder / "clip.gif"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in (0, 120, 240):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    still.write_bytes(_GIF)

    def decode(path: Path) -> None:
        picture = read_picture(path)
        assert picture.dtype == np.uint8
        assert 0 < picture.shape[0] * picture.shape[1] <= PIXEL_LIMIT

    def play(path: Path) -> None:
        camera = open_camera(str(path))
        try:
            for frame, _ in zip(camera, range(MOST_FRAMES), strict=False):
                assert 0 < frame.pixels.shape[0] * frame.pixels.shape[1] <= PIXEL_LIMIT
        finally:
            camera.close()

    return [
        Target("pictures", seeds, _through_file(folder / "picture", decode)),
        Target("videos and GIF", (clip.read_bytes(), _GIF), _through_file(folder / "video", play)),
    ]


_GIF = (
    b"GIF89a\x02\x00\x02\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x00\n\x00\x00\x00,\x00\x00\x00\x00\x02\x00\x02\x00"
    b"\x00\x02\x02\x84Q\x00;"
)
"""Two by two pixels, GIF89a."""


def _networks() -> list[Target]:
    analyzer = (shipped_bundle() / "detector.onnx").read_bytes()
    return [
        Target("ONNX, as the builder reads it", (analyzer,), lambda data: onnx_facts(data, "network")),
        Target("ONNX, as the gate loads it", (analyzer,), lambda data: OnnxRunner(data, "network", 1).close()),
    ]


def _gallery(folder: Path) -> Target:
    path, damaged = folder / "whole.db", folder / "g.db"
    with Gallery(path, "hash", 4, create=True) as gallery:
        gallery.enroll([Sample(name, np.eye(4, dtype=np.float32)[0], "p.png", "0" * 64) for name in ("ann", "bob")])

    def match(data: bytes) -> None:
        for beside in folder.glob("g.db*"):
            beside.unlink()
        damaged.write_bytes(data)
        with Gallery(damaged, "hash") as gallery:
            assert np.isfinite(gallery.templates().vectors).all()

    return Target("gallery", (path.read_bytes(),), match)


def _addresses() -> Target:
    known = (b"0", b"/dev/video0", b"v4l2:///dev/video0?width=64", b"rtsp://u:p@host:554/path", b"csi://0?flip=2",
             b"file:///a.gif", b"synthetic://?frames=2", b"gst:videotestsrc ! appsink")  # fmt: skip
    return Target("camera address", known, lambda data: parse_address(data.decode("utf-8", errors="surrogateescape")))


def _exports(folder: Path) -> list[Target]:
    import torch

    from immunogate.export.description import read_description
    from immunogate.export.onnx_reading import read_onnx
    from immunogate.networks.checkpoint import read_torch_file

    saved = io.BytesIO()
    torch.save({"state_dict": {"a": torch.zeros(3)}}, saved)
    toml = b'name = "mine"\nmean = [127.5, 1.0, 2.0]\nstd = 128.0\ncolour = "BGR"\nnormalised = true\n'
    network = (shipped_bundle() / "detector.onnx").read_bytes()
    return [
        Target("description, TOML", (toml,), _through_file(folder / "d.toml", lambda at: read_description(str(at)))),
        Target("ONNX, as export reads it", (network,), _through_file(folder / "n.onnx", read_onnx)),
        Target("checkpoint", (saved.getvalue(),), _through_file(folder / "c.pt", read_torch_file)),
    ]
