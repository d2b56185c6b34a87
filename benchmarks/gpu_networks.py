"""The project's torch networks as networks on the device's memory, in half precision: what stands in for engines.

Weights are random unless said otherwise: time does not depend on them. They are what `immunogate.networks` defines,
with BatchNorm folded away, as an engine's builder does it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from immunogate.kernels.device import Stream, View
from immunogate.manifest import RecogniserEntry
from immunogate.networks.frozen import frozen
from immunogate.networks.purifier import Purifier
from immunogate.networks.recognisers import recogniser_spec
from immunogate.networks.spectral import SpectralPurifier
from immunogate.structs import CROP_SIZE


@dataclass(frozen=True)
class Cost:
    """What one run needs.

    Attributes:
        weight_bytes: read once a run, whatever the batch.
        products: multiply-accumulates of one face.
    """

    weight_bytes: int
    products: int

    def floor_us(self, rows: int, copy_gb_per_s: float, products_per_s: float) -> float:
        """The larger of two times: for the weights at the copy's rate, and for the products at a large matmul's."""
        return max(self.weight_bytes / copy_gb_per_s / 1e3, rows * self.products / products_per_s * 1e6)


class TorchNetwork:
    """A torch module behind `immunogate.runtime.gpu.network.DeviceNetwork`.

    What it allocates between layers comes from torch's cache for the stream: filled by the first run, which is never
    captured. So nothing else may take from that cache, nor empty it, while a captured graph lives.

    Args:
        name: what it is called.
        module: takes one tensor and gives one.
        input_name: face, or spectrum.
        input_shape: of one row.
        output: name and length of a row of the output.
        half: compute in float16; inputs and outputs are float32 all the same.
        device: of torch.
    """

    largest, capturable = 64, True

    def __init__(
        self,
        name: str,
        module: nn.Module,
        input_name: str,
        input_shape: tuple[int, ...],
        output: tuple[str, int],
        *,
        half: bool = True,
        device: str = "cuda",
    ) -> None:
        module = frozen(module)
        self.cost = cost_of(module, input_shape, 2 if half else 4)
        self.name, self.input_name = name, input_name
        self.input_shape: list[int | str] = ["B", *input_shape]
        self.output_names, self.output_shapes = [output[0]], [["B", output[1]]]
        self._kind = torch.float16 if half else torch.float32
        self._module = module.to(device, self._kind)
        self._device = device
        self._tensors: dict[tuple[Any, ...], torch.Tensor] = {}

    def prepare(self, shape: tuple[int, ...]) -> None:
        """The first run of a shape, which is not captured, allocates."""

    def enqueue(self, batch: View, outputs: dict[str, View], stream: Stream) -> None:
        """Queue one run on the stream."""
        (out,) = outputs.values()
        given, target = self._tensor(batch), self._tensor(out)
        with torch.inference_mode(), torch.cuda.stream(torch.cuda.ExternalStream(stream.address)):
            target.copy_(self.run(given))
        stream.note(batch.buffer, out.buffer)

    def run(self, given: torch.Tensor) -> torch.Tensor:
        """(B, ...) float32 to (B, E); recognisers to unit length or not, as they are defined."""
        found: torch.Tensor = self._module(given.to(self._kind))
        return found

    def close(self) -> None:
        """Let go of the device's memory."""
        self._tensors.clear()

    def _tensor(self, view: View) -> torch.Tensor:
        key = view.address, view.shape, view.dtype.str
        if key not in self._tensors:
            self._tensors[key] = torch.as_tensor(view, device=self._device)
        return self._tensors[key]


def analyzer(kind: str, components: int, device: str = "cuda") -> TorchNetwork:
    """Paper (reads pixels, float16) or spectral (reads the spectrum, float32: its logarithms need the range)."""
    output = "probabilities", components
    if kind == "spectral":
        network = SpectralPurifier(torch.ones(components + 2), gated=False)
        return TorchNetwork(kind, network, "spectrum", (components + 2,), output, half=False, device=device)
    shape = (1, CROP_SIZE, CROP_SIZE)
    return TorchNetwork(kind, Purifier(components, architecture=kind), "face", shape, output, device=device)


def recogniser(name: str, device: str = "cuda") -> tuple[TorchNetwork, RecogniserEntry]:
    """A recogniser by its architecture, and what a manifest would say of it."""
    spec = recogniser_spec(name)
    output = "embedding", spec.embedding_dimension
    network = TorchNetwork(name, spec.build(), "face", (3, spec.height, spec.width), output, device=device)
    entry = RecogniserEntry(
        "none", spec.name, spec.height, spec.width, spec.crop_left, spec.mean, spec.std, spec.colour,
        spec.embedding_dimension, 18, "fp16",
    )  # fmt: skip
    return network, entry


def cost_of(module: nn.Module, shape: tuple[int, ...], bytes_a_weight: int) -> Cost:
    """Counted while one row goes through on the CPU: convolutions and dense layers."""
    products = 0

    def count(layer: nn.Module, _: Any, out: torch.Tensor) -> None:
        nonlocal products
        weight = layer.get_parameter("weight")
        products += out[0].numel() * weight[0].numel()

    hooks = [
        layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    with torch.inference_mode():
        module(torch.zeros((1, *shape)))
    for hook in hooks:
        hook.remove()
    weights = sum(value.numel() for value in module.state_dict().values())
    return Cost(weights * bytes_a_weight, products)


def matmul_per_s(size: int = 8192, rounds: int = 30) -> float:
    """Multiply-accumulates a second of a large float16 product of random numbers: median by device events."""
    a, b = (torch.randn((size, size), device="cuda", dtype=torch.float16) for _ in range(2))
    spent = []
    for turn in range(5 + rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.matmul(a, b)
        end.record()
        end.synchronize()
        if turn >= 5:
            spent.append(start.elapsed_time(end))
    return size**3 / (sorted(spent)[rounds // 2] / 1e3)
