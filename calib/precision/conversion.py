"""One network of a bundle in another precision, and the report of how it was made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from onnx import ModelProto

from immunogate.calib.precision import half, integers
from immunogate.calib.precision.equalise import equalised
from immunogate.calib.precision.integers import IntegerSettings
from immunogate.calib.precision.networks import finished, float_network
from immunogate.calib.precision.search import Judge, LayerCost, cosine_cost, keep_until
from immunogate.errors import UsageError
from immunogate.graphs.rectifiers import without_prelu
from immunogate.structs import Floats

TARGETS = ("fp16", "int8")
LEAST_COSINE = {"fp16": 0.9999, "int8": 0.995}
"""Default limits on the mean cosine between embeddings with and without conversion."""

MOST_SHOWN = 12
"""Layers in a report."""


@dataclass(frozen=True)
class ConversionSettings:
    """What to make.

    Attributes:
        to: fp16 or int8.
        limit: least mean cosine, in (0, 1].
        integers: how int8 finds its scales.

    Raises:
        UsageError: a value is unknown or out of range.
    """

    to: str
    limit: float
    integers: IntegerSettings = field(default_factory=IntegerSettings)

    def __post_init__(self) -> None:
        if self.to not in TARGETS:
            raise UsageError(f"unknown precision {self.to!r}", f"Use one of: {', '.join(TARGETS)}")
        if not 0 < self.limit <= 1:
            raise UsageError(f"--limit: expected a cosine above 0, at most 1, got {self.limit:g}")

    @property
    def precision(self) -> str:
        """The name that the manifest gives it."""
        return "int8-cpu" if self.to == "int8" and self.integers.device == "cpu" else self.to


@dataclass(frozen=True, eq=False)
class Judges:
    """Whole chains that try a candidate network.

    Attributes:
        few: on a few faces, for every layer once.
        many: on more, for the limit.
        few_reference: (N, E) embeddings with the float network.
        many_reference: likewise.
    """

    few: Judge
    many: Judge
    few_reference: Floats
    many_reference: Floats


@dataclass(frozen=True, eq=False)
class Converted:
    """A converted network.

    Attributes:
        data: content of the ONNX file.
        judged: a network that gives here what that one gives on its device; the same but for fp16, see
            `half.rounded`.
        kept: nodes left in float, with the reason and its number.
        costs: of the layers alone, the costliest first.
        layers: how many could be converted.
        cosine: mean with it, on the faces it was made with.
    """

    data: bytes
    judged: bytes
    kept: list[dict[str, Any]]
    costs: list[LayerCost]
    layers: int
    cosine: float

    def report(self) -> dict[str, Any]:
        """As plain data, for provenance and for people."""
        shown = [{"node": e.node, "op": e.op, "cost": float(f"{e.cost:.3g}")} for e in self.costs[:MOST_SHOWN]]
        return {
            "layers": self.layers,
            "kept_in_float": self.kept,
            "costliest_layers": shown,
            "cosine_where_made": round(self.cosine, 6),
        }


def convert(
    data: bytes,
    name: str,
    inputs: Floats,
    judges: Judges,
    settings: ConversionSettings,
    step: Callable[[str], None] = lambda words: None,
) -> Converted:
    """Convert one network.

    Args:
        data: content of the ONNX file, verified; float32, weights possibly stored in float16.
        name: what to call it in errors.
        inputs: (N, ...) float32 as they really reach the network.
        judges: chains that try a candidate.
        settings: to what, how, and the limit.
        step: told what is being done.

    Raises:
        UsageError: the network was converted before.
        BundleError: it is no ONNX network.
    """
    model = float_network(data, name)
    make = _to_half if settings.to == "fp16" else _to_integers
    return make(model, inputs, judges, settings, step)


def _to_half(
    model: ModelProto, inputs: Floats, judges: Judges, settings: ConversionSettings, step: Callable[[str], None]
) -> Converted:
    step("tensors that float16 can not hold")
    unsafe = half.kept_by_range(model, half.observed(model, inputs))
    step("the cost of each layer")
    found = half.costs(model, unsafe, judges.few, judges.few_reference)
    costly = [entry for entry in found if entry.cost > half.COSTLY * (1 - settings.limit)]
    always = [entry.node for entry in unsafe] + [entry.node for entry in costly]
    order = [entry.node for entry in found if entry not in costly]
    step("what has to stay in float")
    names = {node.name for node in model.graph.node}
    more, judged, cosine = keep_until(
        order,
        lambda kept: half.rounded(model, names - {*always, *kept}),
        judges.many,
        judges.many_reference,
        settings.limit,
    )
    kept = [{"node": e.node, "op": e.op, "reason": e.reason, "number": float(f"{e.number:.4g}")} for e in unsafe]
    kept += [_kept(entry) for entry in found if entry in costly or entry.node in more]
    data = finished(half.in_half(model, always + more))
    return Converted(data, judged, kept, found, len(model.graph.node), cosine)


def _to_integers(
    model: ModelProto, inputs: Floats, judges: Judges, settings: ConversionSettings, step: Callable[[str], None]
) -> Converted:
    step("channels of similar size")
    even = equalised(model, inputs)
    if settings.integers.device == "cpu":
        even = without_prelu(even, blocked=False)
    step("ranges of the tensors")
    found = integers.ranges(even, inputs, settings.integers)
    nodes = integers.layers(even)
    names = [node.name for node in nodes]
    to_bytes = partial(integers.in_integers, even, found, settings=settings.integers)
    step("the cost of each layer")
    costs = [
        LayerCost(
            node.name,
            node.op_type,
            cosine_cost(judges.few(to_bytes([other for other in names if other != node.name])), judges.few_reference),
        )
        for node in nodes
    ]
    costs.sort(key=lambda entry: -entry.cost)
    step("what has to stay in float")
    kept, data, cosine = keep_until(
        [entry.node for entry in costs], to_bytes, judges.many, judges.many_reference, settings.limit
    )
    return Converted(data, data, [_kept(entry) for entry in costs if entry.node in kept], costs, len(nodes), cosine)


def _kept(entry: LayerCost) -> dict[str, Any]:
    return {"node": entry.node, "op": entry.op, "reason": "cost", "number": float(f"{entry.cost:.3g}")}
