"""What stands around the weights in the checkpoints people have: optimiser sections, containers, prefixes of names.

Only what is written down here is taken off, and only where the rest is then a state dict of its own; nothing is
guessed. Names are those of torch's own wrappers (`nn.DataParallel`, `torch.compile`), of training frameworks, and of
insightface's arcface_torch, whose training checkpoints keep the backbone in ``state_dict_backbone``.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from typing import Any

from torch import Tensor

logger = logging.getLogger(__name__)

CONTAINERS = ("state_dict", "model", "state_dict_backbone", "backbone", "model_state_dict", "network", "net", "weights")
"""Entries under which a training checkpoint keeps its weights, beside optimiser, epoch and the like."""

PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.", "network.", "net.", "recogniser.", "student.")
"""What a wrapping module puts before every name."""

MOST_NESTED = 3


def unwrapped(content: object, what: str) -> object:
    """The state dict inside a training checkpoint, or ``content`` itself where it holds none under a known name.

    Args:
        content: what was read from a file.
        what: names it in the log.
    """
    for _ in range(MOST_NESTED):
        if not isinstance(content, dict):
            break  # a state dict itself holds no dicts, so that none of its names is taken for a container
        name = next((name for name in CONTAINERS if isinstance(content.get(name), dict) and content[name]), None)
        if name is None:
            break
        left = [str(key) for key in content if key != name]
        logger.info("%s: weights are taken from the entry %s; left aside: %s", what, name, ", ".join(left) or "nothing")
        content = content[name]
    return content


def without_prefixes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state with every known prefix taken off that all of its names have."""
    while prefix := _common_prefix(state):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def parts_of(state: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """What stands under each known prefix that only some names have: a backbone beside its training head.

    Yields:
        prefix, and the state under it.
    """
    for prefix in PREFIXES:
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if part and len(part) < len(state):
            yield prefix, without_prefixes(part)


def _common_prefix(state: dict[str, Tensor]) -> str | None:
    return next((p for p in PREFIXES if state and all(key.startswith(p) for key in state)), None)


def holder_of(content: object, names: Collection[str]) -> object:
    """The dict that has the entries ``names``: ``content``, what lies in one of its containers, or made of flat names.

    A state dict of one network with several parts has flat names (``encoder.in_layer.0.weight``); where every part is
    there, each comes out as a dict of its own.

    Args:
        content: what was read from a file.
        names: of the entries.

    Returns:
        a dict with all of ``names``, or ``content`` as it is where there is none.
    """
    place = content
    for _ in range(MOST_NESTED + 1):
        if not isinstance(place, dict):
            break
        if all(name in place for name in names):
            return place
        split = _split(place, names)
        if split is not None:
            return split
        place = next((place[name] for name in CONTAINERS if isinstance(place.get(name), dict)), None)
    return content


def _split(flat: dict[Any, Any], names: Collection[str]) -> dict[str, Any] | None:
    """Entries ``<name>.<rest>`` as one dict a name; None where a name has none."""
    weights = {key: value for key, value in flat.items() if isinstance(key, str) and isinstance(value, Tensor)}
    plain = without_prefixes(weights)
    parts = {
        name: {key.removeprefix(f"{name}."): value for key, value in plain.items() if key.startswith(f"{name}.")}
        for name in names
    }
    return {**{k: v for k, v in flat.items() if k not in weights}, **parts} if all(parts.values()) else None
