"""Model configurations (``config.pbtxt``), after ``model_config.proto`` of triton-inference-server/common."""

from __future__ import annotations

from dataclasses import dataclass

from immunogate.export.triton.pbtxt import Nested, Value, Word, entries, text

BACKENDS = ("onnxruntime", "tensorrt")
MOST_IN_A_BATCH = 64
QUEUE_DELAY = 500
"""Microseconds for which a face waits for others; a small part of what the networks take on a CPU."""

LATEST = -1


@dataclass(frozen=True)
class Tensor:
    """A float32 input or output.

    Attributes:
        name: in the model.
        shape: of one face, without the batch.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """One run of a model within the ensemble.

    Attributes:
        model: its name.
        inputs: ensemble tensor by the model's input.
        outputs: ensemble tensor by the model's output.
    """

    model: str
    inputs: dict[str, str]
    outputs: dict[str, str]


@dataclass(frozen=True)
class Deployment:
    """What all models have in common.

    Attributes:
        max_batch: most faces in one run.
        backend: one of `BACKENDS`.
        about: parameters that say which bundle this is.
    """

    max_batch: int
    backend: str
    about: dict[str, str]


def model_config(name: str, inputs: list[Tensor], outputs: list[Tensor], deployment: Deployment) -> str:
    """The configuration of one ONNX model: its own queue, one instance, warmed up before it serves."""
    fields = [*_head(name, deployment), ("backend", "onnxruntime"), *_ends(inputs, outputs)]
    kind = Word("KIND_GPU" if deployment.backend == "tensorrt" else "KIND_AUTO")
    fields.append(("instance_group", Nested(("count", 1), ("kind", kind))))
    if deployment.max_batch > 1:
        fields.append(("dynamic_batching", Nested(("max_queue_delay_microseconds", QUEUE_DELAY))))
    if deployment.backend == "tensorrt":
        fields.append(("optimization", _accelerated(inputs, deployment.max_batch)))
    for size in sorted({1, deployment.max_batch}):
        zeros = [("inputs", Nested(("key", tensor.name), ("value", _zeros(tensor)))) for tensor in inputs]
        fields.append(("model_warmup", Nested(("name", f"batch of {size}"), ("batch_size", size), *zeros)))
    return _written(fields, deployment)


def ensemble_config(
    name: str, inputs: list[Tensor], outputs: list[Tensor], steps: list[Step], deployment: Deployment
) -> str:
    """The configuration of the ensemble."""
    fields = [*_head(name, deployment), ("platform", "ensemble"), *_ends(inputs, outputs)]
    runs: list[tuple[str, Value]] = []
    for step in steps:
        maps = [*entries("input_map", step.inputs), *entries("output_map", step.outputs)]
        runs.append(("step", Nested(("model_name", step.model), ("model_version", LATEST), *maps)))
    fields.append(("ensemble_scheduling", Nested(*runs)))
    return _written(fields, deployment)


def _head(name: str, deployment: Deployment) -> list[tuple[str, Value]]:
    return [("name", name), ("max_batch_size", deployment.max_batch)]


def _ends(inputs: list[Tensor], outputs: list[Tensor]) -> list[tuple[str, Value]]:
    return [
        (role, Nested(("name", tensor.name), ("data_type", Word("TYPE_FP32")), ("dims", list(tensor.shape))))
        for role, tensors in (("input", inputs), ("output", outputs))
        for tensor in tensors
    ]


def _zeros(tensor: Tensor) -> Nested:
    return Nested(("data_type", Word("TYPE_FP32")), ("dims", list(tensor.shape)), ("zero_data", True))


def _accelerated(inputs: list[Tensor], max_batch: int) -> Nested:
    """ONNX Runtime's TensorRT provider with one engine for every batch; the ONNX file says the precision."""

    def shapes(batch: int) -> str:
        return ",".join(f"{tensor.name}:{'x'.join(map(str, (batch, *tensor.shape)))}" for tensor in inputs)

    options = {
        "precision_mode": "FP32",
        "trt_profile_min_shapes": shapes(1),
        "trt_profile_opt_shapes": shapes(max_batch),
        "trt_profile_max_shapes": shapes(max_batch),
    }
    accelerator = Nested(("name", "tensorrt"), *entries("parameters", options))
    return Nested(("execution_accelerators", Nested(("gpu_execution_accelerator", accelerator))))


def _written(fields: list[tuple[str, Value]], deployment: Deployment) -> str:
    for key, value in deployment.about.items():
        fields.append(("parameters", Nested(("key", key), ("value", Nested(("string_value", value))))))
    return text(fields) + "\n"
