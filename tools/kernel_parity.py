"""Every CUDA kernel against its definition, over drawn shapes: one function a group of kernels.

Used by the tests on a GPU and on the host's fake, and by ``sanitize_kernels.py``. A check draws its own shapes up to a
limit, fills what is written to with rubbish before, and raises AssertionError where a result is not the definition's.
"""

from __future__ import annotations

from collections.abc import Callable

from parity_clones import check_gene_weights, check_mutate, check_select
from parity_pictures import check_match, check_pictures
from parity_place import Limits, Place
from parity_products import check_act, check_project

from immunogate.kernels.device import Device
from immunogate.kernels.launch import ELEMENTS

__all__ = ["CHECKS", "Check", "Limits", "Place", "run"]

Check = Callable[[Place], None]

_KINDS = tuple(ELEMENTS.values())
CHECKS: dict[Check, frozenset[str]] = {
    check_project: frozenset({"spectrum", *(f"project_{kind}_{shared}" for kind in _KINDS for shared in (1, 4, 8))}),
    check_act: frozenset(
        {"recogniser_planes", *(f"act_{form}_{kind}" for form in ("chosen", "dense") for kind in _KINDS)}
    ),
    check_select: frozenset({"select_clones"}),
    check_mutate: frozenset({"mutate", "take_likely"}),
    check_gene_weights: frozenset({"gene_weights"}),
    check_match: frozenset({"mean_embedding", "match"}),
    check_pictures: frozenset({"letterbox_bgr", "letterbox_nv12", "warp_bgr", "warp_nv12", "crop_faces"}),
}
"""Every check with the kernels that it launches."""


def run(check: Check, device: Device, seed: int, limits: Limits) -> None:
    """One check with its own memory, given back whatever happens."""
    place = Place(device, seed, limits)
    try:
        check(place)
    finally:
        place.close()
