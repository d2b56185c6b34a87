"""The side-car of an engine: everything that the engine depends on, written beside it as JSON.

An engine is a cache. TensorRT ties it to its own version, to the operating system and to the GPU; the rest of the
record says from which network and with which settings it was built, so that a stale one is known for what it is.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from immunogate.errors import ImmunogateError
from immunogate.limits import parse_json

SCHEMA = 1
"""Version of the side-car's fields."""

NETWORKS = ("detector", "analyzer", "recogniser")
"""Parts of a bundle that have engines."""

ANY_AMPERE, SAME_CAPABILITY, THIS_GPU = "ampere+", "sameComputeCapability", "none"
HARDWARE_LEVELS = (THIS_GPU, ANY_AMPERE, SAME_CAPABILITY)
"""Which other GPUs an engine is for, in trtexec's words."""

AMPERE = (8, 0)
"""Least compute capability of engines of the level ampere+."""


class EngineError(ImmunogateError):
    """An engine is missing, damaged, stale, foreign, or can not be built; the message says which and how to mend it."""


@dataclass(frozen=True)
class Machine:
    """What an engine is tied to.

    Attributes:
        tensorrt: full version of the library that built it.
        cuda: newest CUDA that the driver knows, 13.0 for instance.
        driver: release of the driver; empty where it can not be read.
        compute_capability: 8.7 for instance.
        device_name: as the driver gives it.
        os: operating system.
        architecture: of the processor.
        l4t: release of Jetson Linux, 36.4.3 for instance; empty elsewhere.
    """

    tensorrt: str
    cuda: str
    driver: str
    compute_capability: str
    device_name: str
    os: str
    architecture: str
    l4t: str

    @property
    def capability(self) -> tuple[int, ...]:
        """The compute capability as numbers."""
        return tuple(int(part) for part in self.compute_capability.split("."))


@dataclass(frozen=True)
class Profile:
    """Shapes of the input that one optimisation profile takes, and the one that it is tuned for (``opt``)."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def admits(self, shape: tuple[int, ...]) -> bool:
        """Whether an input of this shape lies in its range."""
        return len(shape) == len(self.min) and all(
            low <= length <= high for low, length, high in zip(self.min, shape, self.max, strict=True)
        )


@dataclass(frozen=True)
class Flags:
    """Settings of the builder that change the engine.

    Attributes:
        version_compatible: newer TensorRT releases load it too; it carries code that runs on loading.
        hardware_compatible: one of `HARDWARE_LEVELS`.
        tf32: products of float32 may be rounded to TF32.
        workspace_mib: most scratch memory of a layer in MiB; None for the device's own limit.
        optimization_level: TensorRT's builder optimisation level, 0..5.
    """

    version_compatible: bool = False
    hardware_compatible: str = THIS_GPU
    tf32: bool = False
    workspace_mib: int | None = None
    optimization_level: int = 3


@dataclass(frozen=True)
class EngineRecord:
    """All of a side-car.

    Attributes:
        network: one of `NETWORKS`.
        model_id, bundle_sha256: of the bundle it was built from; for people to read. A calibration changes the
            bundle's hash and leaves its engines valid, so neither is compared.
        onnx_file, onnx_sha256: the network in the bundle.
        precision: that the ONNX holds.
        input_name: of the network's only input.
        profiles: one for each batch size, or for each range of frame sizes.
        flags: settings of the builder.
        machine: what the engine is tied to.
        engine_sha256, engine_bytes: of the engine itself.
        build_seconds: how long TensorRT took.
        created: when, ISO 8601 in UTC.
        built_by: version of this package.
        schema: version of these fields.
    """

    network: str
    model_id: str
    bundle_sha256: str
    onnx_file: str
    onnx_sha256: str
    precision: str
    input_name: str
    profiles: tuple[Profile, ...]
    flags: Flags
    machine: Machine
    engine_sha256: str
    engine_bytes: int
    build_seconds: float
    created: str
    built_by: str
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Indented JSON text with a final newline."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str, where: str) -> EngineRecord:
        """Parse and validate.

        Args:
            text: content of the side-car.
            where: its path, for errors.

        Raises:
            EngineError: it is no side-car, or one of another version.
        """
        mend = "Build the engine again: immunogate build"
        try:
            data = parse_json(text)
        except ValueError as error:
            raise EngineError(f"{where} is not JSON: {error}", mend) from error
        if isinstance(data, dict) and data.get("schema") != SCHEMA:
            version = data.get("schema")
            raise EngineError(f"{where} has version {version!r}, this release reads version {SCHEMA}", mend)
        try:
            record: EngineRecord = _decoded(EngineRecord, data)
        except (TypeError, ValueError) as error:
            raise EngineError(f"{where} is no side-car of an engine: {error}", mend) from error
        return record


def _decoded(kind: Any, data: Any) -> Any:
    """Plain JSON data as the annotated type; TypeError or ValueError where it is something else."""
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        if not isinstance(data, dict) or set(data) != set(hints):
            different = set(hints) ^ set(data) if isinstance(data, dict) else {"all of it"}
            raise TypeError(f"its fields are not those expected: {', '.join(sorted(different))}")
        make: Any = kind
        return make(**{name: _decoded(hint, data[name]) for name, hint in hints.items()})
    if get_origin(kind) is tuple:
        if not isinstance(data, list):
            raise TypeError(f"expected a list, got {type(data).__name__}")
        return tuple(_decoded(get_args(kind)[0], item) for item in data)
    kinds = get_args(kind) or ((float, int) if kind is float else (kind,))
    if not isinstance(data, kinds) or (isinstance(data, bool) and bool not in kinds):
        raise TypeError(f"expected {' or '.join(item.__name__ for item in kinds)}, got {type(data).__name__}")
    return data
