"""Layers of a network as ONNX Runtime's own profiler sees them; the package onnx is not needed for it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from immunogate.errors import BundleError
from immunogate.kernels.cpu import usable_threads
from immunogate.profiling.layers import Layer, Shape

SUFFIX = "_kernel_time"


def layer_runs(
    model: bytes, name: str, shape: Sequence[int], *, runs: int, fused: bool = True, threads: int | None = None
) -> tuple[list[list[Layer]], int]:
    """Run a network on the CPU under the profiler.

    Args:
        model: content of the ONNX file, already verified.
        name: what to call it in errors.
        shape: of its input, which is filled with zeros.
        runs: how often, after one that does not count.
        fused: as it runs at a gate; else node by node as the file has it, for counting.
        threads: of one run.

    Returns:
        The layers of each run, and how many numbers its input and outputs hold together.

    Raises:
        BundleError: ONNX Runtime does not accept the network or the shape.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or usable_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    options.enable_profiling = True
    if not fused:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "layers")
        try:
            session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            zeros = {session.get_inputs()[0].name: np.zeros(tuple(shape), np.float32)}
            outputs = [session.run(None, zeros) for _ in range(1 + runs)][-1]
        except Exception as error:  # ONNX Runtime raises classes of its own that share no public base
            raise BundleError(f"ONNX Runtime does not profile {name}: {error}", "Export the bundle again") from error
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    edge = int(np.prod(shape)) + sum(np.size(output) for output in outputs)
    return _by_run(events, 1 + runs)[1:], edge


def _by_run(events: list[dict[str, Any]], runs: int) -> list[list[Layer]]:
    """Nodes stand in the order in which they ran; a run is over when its first node comes again."""
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(SUFFIX)]
    length = len(nodes) // runs
    return [[_layer(event) for event in nodes[run * length : (run + 1) * length]] for run in range(runs)]


def _layer(event: dict[str, Any]) -> Layer:
    details = event["args"]
    return Layer(
        name=event["name"].removesuffix(SUFFIX),
        operator=details["op_name"],
        inputs=_shapes(details.get("input_type_shape", [])),
        outputs=_shapes(details.get("output_type_shape", [])),
        weight_bytes=int(details.get("parameter_size", 0)),
        ms=event["dur"] / 1e3,
    )


def _shapes(described: list[dict[str, list[int]]]) -> tuple[Shape, ...]:
    return tuple(tuple(shape) for one in described for shape in one.values())
