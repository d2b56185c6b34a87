"""A whole evaluation with made-up figures: as many parts as a real one has, drawn from a seed, measured on nothing."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from fake_document import small_document

from immunogate.calib.robustness.document import (
    Aim,
    Alarm,
    Check,
    Configuration,
    Det,
    Document,
    Key,
    Milliseconds,
    Panel,
    Queries,
    Rate,
    Row,
    Sanity,
    Signal,
    SignalRow,
    Status,
    Tier,
    Verdict,
    rate_of,
)

PAIRS = 100
STRENGTH: dict[Key, float] = {
    "none": 0.6, "jpeg": 0.9, "blur": 1.0, "bits": 0.8, "fixed": 1.7, "bundle": 2.6, "sample": 2.1,
}  # fmt: skip
NAMES: dict[Key, str] = {
    "none": "no defence", "jpeg": "JPEG, quality 75", "blur": "Gaussian blur, 1 pixel", "bits": "4 bits a pixel",
    "fixed": "fixed projection, top 1000", "bundle": "the bundle: trained, 4 views", "sample": "one clone drawn",
}  # fmt: skip
ATTACKS: tuple[tuple[Tier, str, float], ...] = (
    ("controls", "uniform noise", 0.05), ("oblivious", "FGSM", 0.35), ("oblivious", "PGD-40", 0.5),
    ("adaptive", "PGD-100", 1.0), ("adaptive", "APGD-100", 1.05),
)  # fmt: skip


def made_up_document(seed: int = 0, status: Status = "WEAK") -> Document:
    """Made-up figures of a hundred pairs, every tier, seven configurations."""
    draw = np.random.default_rng(seed)
    small = small_document()
    words = (
        "An attacker who knows the defence and may change pixels by 4 of 255 grey levels mostly gets past it.",
        "Against attacks made for the recogniser alone the bundle holds about half of the genuine pairs at 8 of 255.",
        "It holds more than the fixed projection of the same size at 2 of 255.",
    )
    verdict = Verdict(status, words, ("The recogniser is one that ships for demonstration.",))
    return Document(
        **{
            **{name: getattr(small, name) for name in ("schema_version", "tool", "created", "environment", "setting")},
            "seconds": 5230.0,
            "command": "immunogate evaluate bundle people.npz --protocol standard --seed 0 --out robustness",
            "bundle": small.bundle,
            "verdict": verdict,
            "configurations": tuple(_configuration(key, index) for index, key in enumerate(NAMES)),
            "rows": tuple(_rows(draw)),
            "det": tuple(_det(key) for key in ("none", "fixed", "bundle")),
            "alarm": _alarm(draw),
            "sanity": Sanity(status == "FAULTY", tuple(_checks(status))),
            "panels": tuple(_panels(draw)),
            "not_tested": ("Cameras: photos were attacked as files.", "Patches larger than a pair of glasses."),
        }
    )


def picture(pixels: np.ndarray[tuple[int, int], np.dtype[np.uint8]]) -> str:
    """(H, W) uint8 as a grey PNG in base64."""
    height, width = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    data = b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
                    for name, body in parts)  # fmt: skip
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()


def _configuration(key: Key, index: int) -> Configuration:
    time = None if key == "jpeg" else Milliseconds(3.0 + 4 * index, 4.1 + 6.5 * index, 200)
    return Configuration(key, NAMES[key], 0.31 + 0.02 * index, "half of the people", rate_of(index, 6000), time)


def _rows(draw: np.random.Generator) -> Iterator[Row]:
    for key in NAMES:
        clean = _rate(draw, 0.7 if key == "none" else 0.65)
        yield Row("controls", "clean", "none", "aligned crop", None, key, clean, clean, 0, None, None, None, None)
    for tier, attack, force in ATTACKS:
        for goal in ("dodging", "impersonation"):
            for eps in (2.0, 4.0, 8.0):
                yield from (_row(draw, tier, attack, goal, eps, key, force) for key in NAMES)
    held = rate_of(31, PAIRS)
    yield Row("black box", "Square", "dodging", "aligned crop", 8.0, "bundle", None, held, 0, None, None,
              Queries(2210.0, 5000), None)  # fmt: skip
    yield Row("black box", "HopSkipJump", "dodging", "aligned crop", 8.0, "bundle", None, None, 0, None, None, None,
              "not run: the attack library is not installed")  # fmt: skip
    yield Row("patch", "glasses, PGD-100", "impersonation", "aligned crop", None, "bundle", held, held, 3, None, None,
              None, None)  # fmt: skip
    for tries in (1, 3, 5):
        yield Row("retries", "PGD-100", "impersonation", "camera frame", 4.0, "sample", None,
                  rate_of(40 + 4 * tries, PAIRS), 0, None, tries, None, None)  # fmt: skip


def _row(draw: np.random.Generator, tier: Tier, attack: str, goal: Aim, eps: float, key: Key, force: float) -> Row:
    kept = 0.7 * np.exp(-((force * eps / STRENGTH[key]) ** 1.2) / 2)
    share = kept if goal == "dodging" else 0.85 - kept
    twin = _rate(draw, share)
    deployed = None if (tier == "adaptive" and key == "sample") else _rate(draw, share)
    variants = {"straight through": twin, "soft mask": _rate(draw, share)} if tier == "adaptive" else None
    return Row(tier, attack, goal, "aligned crop", eps, key, twin, deployed, 1 if key == "bundle" else 0, variants,
               None, None, None)  # fmt: skip


def _rate(draw: np.random.Generator, share: float) -> Rate:
    return rate_of(int(draw.binomial(PAIRS, min(max(share, 0.0), 1.0))), PAIRS)


def _det(key: Key) -> Det:
    fmr = np.geomspace(1e-4, 0.5, 60)
    slope = {"none": 0.12, "fixed": 0.15, "bundle": 0.145}[key]
    fnmr = np.clip(slope * fmr**-0.17 - 0.1, 0, 1)
    return Det(key, (0.0, *map(float, fmr)), (0.95, *map(float, fnmr)))


def _alarm(draw: np.random.Generator) -> Alarm:
    rows = tuple(SignalRow(attack, eps, _rate(draw, 0.1 * eps), _rate(draw, 0.1 * eps + 0.2),
                           _rate(draw, 0.1 * eps + 0.1) if attack == "PGD-40" else None)
                 for attack in ("PGD-40", "PGD-100") for eps in (2.0, 4.0, 8.0))  # fmt: skip
    return Alarm(
        (
            Signal("raw against purified", 0.412, rate_of(2, 1200), rows),
            Signal("consecutive frames", 0.2, rate_of(0, 400), rows[:2]),
            Signal("any of them", None, rate_of(3, 1200), rows),
        )
    )


def _checks(status: Status) -> Iterator[Check]:
    yield Check("converged", status != "FAULTY", 0.004, 0.01, "Twice the steps change the rate by less than a point.")
    yield Check("large bound", True, 0.0, 0.02, "At 32 of 255 hardly any genuine pair is left.")
    yield Check("black box is no better", True, None, None, "No attack that only asks does better than one that looks.")


def _panels(draw: np.random.Generator) -> Iterator[Panel]:
    rows, columns = np.mgrid[0:112, 0:112]
    face = 128 + 70 * np.exp(-((rows - 56) ** 2 + (columns - 56) ** 2) / 900) - 30 * np.cos(columns / 9)
    for name in ("Person 12", "Person 40"):
        noise = 4 * np.sign(draw.standard_normal((112, 112)))
        made = (face + noise, 128 + 10 * noise, face)
        pictures = [picture(np.clip(pixels, 0, 255).astype(np.uint8)) for pixels in made]
        yield Panel(name, "Dodging, PGD-100, 4 of 255.", *pictures, 0.71, 0.22)
