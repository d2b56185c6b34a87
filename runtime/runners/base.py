"""What every runner of a network has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from immunogate.errors import BundleError

if TYPE_CHECKING:
    from immunogate.bundle import Bundle
    from immunogate.kernels.device import Device

Array = npt.NDArray[Any]
Role = Literal["detector", "analyzer", "recogniser"]


@dataclass(frozen=True, eq=False)
class Network:
    """What a runner is opened for.

    Attributes:
        model: content of the ONNX file, already verified.
        name: what to call it in errors, ``recogniser.onnx`` for instance.
        largest: the largest input that it will be given, for runners that compile for a range of sizes.
        threads: threads of one run on the CPU.
        device: number of the GPU, as the driver counts (CUDA_VISIBLE_DEVICES changes that).
        bundle: where it comes from, for runners that look for something made of it.
        role: which of the bundle's networks it is.
        shared: an open device, for runners that can share its memory with the kernels; whoever opened it closes it.
    """

    model: bytes
    name: str
    largest: tuple[int, ...]
    threads: int | None = None
    device: int = 0
    bundle: Bundle | None = None
    role: Role | None = None
    shared: Device | None = None


class Runner(ABC):
    """One network, ready to run.

    Attributes:
        kind: which runner this is, by the name that ``--runner`` has for it.
        passed_over: (runner, why not) for each that ``auto`` would have preferred; set by `choose.open_runner`.
        name: what it is called in errors.
        input_name: of its only input.
        input_shape: numbers, and names where any length is taken.
        output_names: in the network's order.
        output_shapes: of each, as ``input_shape``.
    """

    kind: str
    passed_over: tuple[tuple[str, str], ...] = ()
    name: str
    input_name: str
    input_shape: list[int | str]
    output_names: list[str]
    output_shapes: list[list[int | str]]

    @abstractmethod
    def run(self, batch: Array) -> dict[str, Array]:
        """All outputs by name.

        Args:
            batch: float32 of the network's input shape.
        """

    def close(self) -> None:  # noqa: B027 - most have nothing to give back
        """Give back memory and threads."""

    def expect(
        self, input_shape: Sequence[int | None], outputs: Sequence[str], output_shape: Sequence[int | None] = ()
    ) -> None:
        """Check that this is the network that was meant.

        Args:
            input_shape: what it will be given; None where any length is.
            outputs: names that will be asked for.
            output_shape: of the first of them, where it matters.

        Raises:
            BundleError: it takes another input, lacks an output, or gives one of another shape.
        """
        takes, missing = self.input_shape, sorted(set(outputs) - set(self.output_names))
        if missing or not _fits(takes, input_shape):
            raise BundleError(
                f"{self.name} is not the network that the manifest describes: it takes {takes} and gives "
                f"{', '.join(self.output_names[:4])}; expected {list(input_shape)} and {', '.join(outputs[:4])}",
                "Export the bundle again",
            )
        gives = self.output_shapes[self.output_names.index(outputs[0])]
        if output_shape and not _fits(gives, output_shape):
            raise BundleError(
                f"{self.name} is not the network that the manifest describes: its {outputs[0]} are {gives}, expected "
                f"{list(output_shape)}",
                "Export the bundle again",
            )


def _fits(own: Sequence[int | str], given: Sequence[int | None]) -> bool:
    """Whether a network's shape, in which names stand for any length, takes this one."""
    return len(own) == len(given) and all(
        length == asked for length, asked in zip(own, given, strict=True) if isinstance(length, int) and asked
    )
