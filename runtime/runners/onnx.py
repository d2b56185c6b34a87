"""Runs one network on ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from immunogate.errors import BundleError
from immunogate.kernels.cpu import usable_threads
from immunogate.runtime.runners.base import Array, Runner


class OnnxRunner(Runner):
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

    def run(self, batch: Array) -> dict[str, Array]:
        """All outputs by name.

        Args:
            batch: float32 of the network's input shape.
        """
        values = self._session.run(self.output_names, {self.input_name: np.ascontiguousarray(batch)})
        return dict(zip(self.output_names, values, strict=True))
