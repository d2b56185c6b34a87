"""What will be built: for each network of a bundle its input, its precision and its optimisation profiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from immunogate.bundle import Bundle
from immunogate.engines.record import NETWORKS, Flags, Profile
from immunogate.engines.store import network_files
from immunogate.errors import BundleError, UsageError
from immunogate.export.engine.onnx_facts import Shape, onnx_facts

BUCKETS = (1, 2, 4, 8)
"""Batch sizes that have a profile of their own; in between, rows are filled up."""

MOST_BATCH = 64
DETECTOR_SIDE = 640
"""Default longest side of a frame in pixels, as `immunogate run` has it."""

CLOSE_LOOK = 192
"""Side in pixels of the views in which a face is detected again before it is recognised (`runtime/upright.py`)."""

DETECTOR_MULTIPLE = 32
"""Frames are padded to a multiple of the detector's coarsest grid."""

FOR_CPUS = "int8-cpu"
"""What a manifest says of networks in int8 that only ONNX Runtime on a processor takes."""

SAME_ARITHMETIC = {"fp32": ("fp32", "fp16-weights"), "fp16": ("fp16",), "int8": ("int8",)}
"""What an ONNX may hold where this precision is asked for: float16 weights of float32 arithmetic are float32."""


@dataclass(frozen=True)
class NetworkPlan:
    """One network that will be built.

    Attributes:
        network: detector, analyzer or recogniser.
        file: its ONNX in the bundle.
        model: content of that file, verified.
        precision: that it holds.
        input_name, input_shape: of its only input; names stand for lengths that are open.
        profiles: shapes it is built for; none where its input has no open length.
    """

    network: str
    file: str
    model: bytes
    precision: str
    input_name: str
    input_shape: Shape
    profiles: tuple[Profile, ...]


@dataclass(frozen=True)
class BuildOptions:
    """What a user may ask for.

    Attributes:
        networks: to build; empty for all.
        precision: that they have to hold; None for whatever they do.
        max_batch: most faces in one run.
        detector_side: longest side in pixels of the frames that the detector sees.
        flags: of the builder.
    """

    networks: tuple[str, ...] = ()
    precision: str | None = None
    max_batch: int = BUCKETS[-1]
    detector_side: int = DETECTOR_SIDE
    flags: Flags = field(default_factory=Flags)


def plan(bundle: Bundle, options: BuildOptions) -> list[NetworkPlan]:
    """Read and verify the networks, and lay down what is built of each.

    Raises:
        BundleError: a file is missing, tampered with, or no network with one input.
        UsageError: the bundle lacks a network that was asked for, or a network holds another precision.
    """
    files = network_files(bundle)
    for name in options.networks:
        if name not in files:
            raise UsageError(f"{bundle.folder} has no {name}", f"It has: {', '.join(files)}")
    chosen = [name for name in NETWORKS if name in files and name in (options.networks or NETWORKS)]
    plans = [_plan_of(bundle, name, files[name], options) for name in chosen]
    _expect_precision(bundle, plans, options.precision)
    return plans


def buckets(max_batch: int) -> tuple[int, ...]:
    """Batch sizes with a profile: 1, 2, 4, 8 and on in doubles up to the largest, which is always one.

    Raises:
        UsageError: the largest is out of range.
    """
    if not 1 <= max_batch <= MOST_BATCH:
        raise UsageError(f"--max-batch must be in 1 .. {MOST_BATCH}, got {max_batch}")
    doubled = [1 << power for power in range(max_batch.bit_length()) if 1 << power < max_batch]
    return (*doubled, max_batch)


def face_profiles(shape: Sequence[int | str], max_batch: int) -> tuple[Profile, ...]:
    """One profile for each batch size, of that size alone, so that its kernels are chosen for it."""
    rest = [length for length in shape[1:] if isinstance(length, int)]
    sizes = [(count, *rest) for count in buckets(max_batch)]
    return tuple(Profile(size, size, size) for size in sizes)


def detector_profiles(shape: Sequence[int | str], side: int) -> tuple[Profile, ...]:
    """Two profiles: frames up to ``side`` x ``side`` pixels, tuned for 16:9, and the close look's own size.

    Raises:
        UsageError: the side is out of range.
    """
    if not CLOSE_LOOK <= side <= 4096:
        raise UsageError(f"--detector-size must be in {CLOSE_LOOK} .. 4096 pixels, got {side}")
    planes = (1, shape[1] if isinstance(shape[1], int) else 3)
    least, most = DETECTOR_MULTIPLE, _padded(side)
    look = (*planes, CLOSE_LOOK, CLOSE_LOOK)
    frames = Profile((*planes, least, least), (*planes, _padded(side * 9 // 16), most), (*planes, most, most))
    return frames, Profile(look, look, look)


def _padded(side: int) -> int:
    return -(-side // DETECTOR_MULTIPLE) * DETECTOR_MULTIPLE


def _plan_of(bundle: Bundle, network: str, file: str, options: BuildOptions) -> NetworkPlan:
    if getattr(getattr(bundle.manifest, network), "precision", "") == FOR_CPUS:
        raise UsageError(
            f"{file} is quantised for processors, with zero points that TensorRT does not take",
            "Convert it for GPUs: immunogate calibrate precision BUNDLE FACES.npz --to int8 --for gpu --out FOLDER",
        )
    model = bundle.read(file)
    facts = onnx_facts(model, file)
    if len(facts.inputs) != 1:
        raise BundleError(f"{file} has {len(facts.inputs)} inputs, expected one", "Export the bundle again")
    ((name, shape),) = facts.inputs.items()
    open_lengths = [place for place, length in enumerate(shape) if isinstance(length, str)]
    if not open_lengths:
        profiles: tuple[Profile, ...] = ()
    elif network == "detector" and set(open_lengths) <= {2, 3} and len(shape) == 4:
        profiles = detector_profiles(shape, options.detector_side)
    elif network != "detector" and open_lengths == [0]:
        profiles = face_profiles(shape, options.max_batch)
    else:
        raise BundleError(f"{file} takes {list(shape)}: no profile is known for it", "Export the bundle again")
    return NetworkPlan(network, file, model, facts.precision, name, shape, profiles)


def _expect_precision(bundle: Bundle, plans: list[NetworkPlan], asked: str | None) -> None:
    """The networks that see faces have to hold what was asked for; the detector keeps its own precision."""
    for item in plans:
        if asked and item.network != "detector" and item.precision not in SAME_ARITHMETIC[asked]:
            convert = f"immunogate calibrate precision {bundle.folder} FACES.npz --to {asked} --out FOLDER"
            raise UsageError(
                f"{item.file} holds {item.precision}, not {asked}: the precision of an engine is that of its ONNX",
                "Export the bundle again" if asked == "fp32" else f"Convert the bundle first: {convert}",
            )
