"""Pictures that were made without the defence: noise, JPEG, and attacks on the bare recogniser, shown to every gate."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name every torch reader knows
from torch import Tensor

from immunogate.calib.robustness.desk import Desk, Look, Side
from immunogate.calib.robustness.document import Row, Tier
from immunogate.calib.robustness.filters import jpeg
from immunogate.calib.robustness.gates import Gate
from immunogate.calib.robustness.outcome import Attempt, Knowledge, Outcome, Raised
from immunogate.calib.robustness.pixels import bound, crops_within, tensor_of
from immunogate.calib.robustness.protocols import FGSM_LEVELS
from immunogate.calib.robustness.rows import attempt, row, signals
from immunogate.networks.attacks import Found, LinfBall, Pgd, Target, fgsm
from immunogate.networks.attacks.target import Attackable
from immunogate.structs import CROP_SIZE, Pixels

STEPS = 40
MOMENTUM_STEPS, DIVERSE_STEPS = 20, 40
SMALLEST, DIVERSE_SHARE = 96, 0.7
"""DI-FGSM: smallest side in pixels to which a picture is shrunk, and the share of pictures that are."""


def clean_and_noise(desk: Desk, gates: Sequence[Gate], levels: Sequence[int]) -> Outcome:
    """Genuine pairs as they are, with noise that knows nothing, and as JPEG."""
    side = desk.side("dodging", desk.protocol.pairs)
    pictures: list[tuple[str, float | None, Pixels]] = [("clean", None, side.crops)]
    draw = np.random.default_rng([desk.seed, 3])
    for size in levels:
        uniform = draw.integers(-size, size + 1, side.crops.shape)
        gaussian = draw.normal(0, size, side.crops.shape).round()
        for name, noise in (("uniform noise", uniform), ("Gaussian noise", gaussian)):
            pictures.append((name, float(size), np.clip(side.crops + noise, 0, 255).astype(np.uint8)))
    pictures.append(("JPEG", None, jpeg(side.crops)))
    parts = [
        _to_all(desk, gates, "controls", name, side, size, crops, "clean" if name == "clean" else "noise")
        for name, size, crops in pictures
    ]
    return _joined(parts)


def oblivious(desk: Desk, gates: Sequence[Gate], name: str, aim: str, levels: float) -> Outcome:
    """An attack on the bare recogniser, as strong as can be, shown to all gates: it never saw any of them."""
    bare, side = desk.gates["none"], desk.side(aim, desk.protocol.pairs)
    goal = desk.goal(bare, side, patient=True)
    if name == "FGSM":
        # Lowering the cosine with the opposite of a template raises that with the template.
        away = -goal.push if aim == "impersonation" else goal.push
        points = fgsm(lambda faces: bare.forward(faces, torch.arange(len(faces)), 0), side.clean, away, bound(levels))
    else:
        steps, target, momentum = STEPS, bare.target("exact"), 0.0
        if name == "MI-FGSM":
            steps, momentum = MOMENTUM_STEPS, 1.0
        if name == "DI-FGSM":
            steps, momentum = DIVERSE_STEPS, 1.0
            target = Target(bare.forward, diverse(bare.forward, desk.seed))
        method = Pgd(steps, momentum=momentum, seed=desk.seed)
        found: Found = desk.search(name, target, side.clean, goal, LinfBall(bound(levels)), method)
        points, name = found.points, f"{name}-{steps}"
    crops = crops_within(points, side.clean, levels)
    return _to_all(desk, gates, "oblivious", name, side, levels, crops, "transfer")


def diverse(embed: Attackable, seed: int) -> Attackable:
    """The same on pictures that are shrunk and put somewhere at random, most of the time.

    Source: Xie et al., "Improving Transferability of Adversarial Examples with Input Diversity", CVPR 2019.
    """

    def embedded(points: Tensor, rows: Tensor, draw: int) -> Tensor:
        words = hashlib.sha256(f"{seed}/{draw}/diverse".encode()).digest()
        random = np.random.default_rng(list(words))
        if random.random() > DIVERSE_SHARE:
            return embed(points, rows, draw)
        side = int(random.integers(SMALLEST, CROP_SIZE))
        planes = points.reshape(-1, 1, CROP_SIZE, CROP_SIZE)
        small = F.interpolate(planes, (side, side), mode="bilinear", align_corners=False)
        top, left = random.integers(0, CROP_SIZE - side + 1, 2)
        padding = [int(left), CROP_SIZE - side - int(left), int(top), CROP_SIZE - side - int(top)]
        return embed(F.pad(small, padding).reshape(points.shape), rows, draw)

    return embedded


def sizes_of(name: str, levels: Sequence[int]) -> Sequence[float]:
    """FGSM has the size of the paper's, the others those of the table."""
    return (FGSM_LEVELS,) if name == "FGSM" else levels


def _to_all(
    desk: Desk,
    gates: Sequence[Gate],
    tier: Tier,
    name: str,
    side: Side,
    levels: float | None,
    crops: Pixels,
    knowledge: Knowledge,
) -> Outcome:
    rows: list[Row] = []
    attempts: list[Attempt] = []
    raised: list[Raised] = []
    bare: Look | None = None
    for gate in gates:
        twin = desk.twin_accepts(gate, desk.goal(gate, side), tensor_of(crops))
        look = desk.look(gate, side, crops)
        bare = look if gate.key == "none" else bare  # it comes first, where it is among them
        aim = side.aim if tier != "controls" else "none"
        rows.append(row(tier, name, aim, levels, gate, twin, look))  # type: ignore[arg-type]
        if gate.own:
            attempts.append(attempt(name, side, knowledge, levels or 0.0, twin))
            raised += signals(desk, gate, name, side, levels, look, bare)
    return Outcome(tuple(rows), tuple(attempts), tuple(raised))


def _joined(parts: Sequence[Outcome]) -> Outcome:
    return Outcome(
        tuple(one for part in parts for one in part.rows),
        tuple(one for part in parts for one in part.attempts),
        tuple(one for part in parts for one in part.raised),
    )
