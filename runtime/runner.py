"""Runs one network. Further runners (engines) keep this face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from immunogate.errors import BundleError
from immunogate.kernels.cpu import usable_threads

Array = npt.NDArray[Any]


class OnnxRunner:
    """One ONNX network on ONNX Runtime's CPU provider.

    Args:
        model: content of the ONNX file, already verified.
        name: what to call it in errors.
        threads: threads of one run.

    Raises:
        BundleError: ONNX Runtime does not accept the network; its words are passed on.
    """

    def __init__(self, model: bytes, name: str, threads: int | None = None) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or usable_threads()
        options.inter_op_num_threads = 1
        # Idle workers must not spin: the kernels and the camera need the processors between two runs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises classes of its own that share no public base
            raise BundleError(f"ONNX Runtime does not accept {name}: {error}", "Export the bundle again") from error
        self.name = name
        self.input_name: str = self._session.get_inputs()[0].name
        self.input_shape: list[int | str] = self._session.get_inputs()[0].shape
        self.output_names: list[str] = [output.name for output in self._session.get_outputs()]
        self.output_shapes: list[list[int | str]] = [output.shape for output in self._session.get_outputs()]

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

    def run(self, batch: Array) -> dict[str, Array]:
        """All outputs by name.

        Args:
            batch: float32 of the network's input shape.
        """
        values = self._session.run(self.output_names, {self.input_name: np.ascontiguousarray(batch)})
        return dict(zip(self.output_names, values, strict=True))


def _fits(own: Sequence[int | str], given: Sequence[int | None]) -> bool:
    """Whether a network's shape, in which names stand for any length, takes this one."""
    return len(own) == len(given) and all(
        length == asked for length, asked in zip(own, given, strict=True) if isinstance(length, int) and asked
    )
