"""Key names and shapes of the public checkpoints, written down by hand so that a slip in a network shows."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import pytest

Shapes = dict[str, tuple[int, ...]]


def norm(prefix: str, channels: int) -> Shapes:
    vectors: Shapes = {f"{prefix}.{name}": (channels,) for name in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{prefix}.num_batches_tracked": ()}


def encoder_shapes() -> Shapes:
    shapes: Shapes = {"in_layer.0.weight": (64, 1, 3, 3), "in_layer.1.weight": (64,)}
    widths = (64, 64, 64, 128, 128, 256, 256, 512, 512)
    for number in range(1, 9):
        block, before, after = f"block{number}", widths[number - 1], widths[number]
        shapes |= {f"{block}.shortcut_layer.0.weight": (after, before, 1, 1)} | norm(f"{block}.shortcut_layer.1", after)
        shapes |= {f"{block}.conv1.weight": (after, before, 3, 3)} | norm(f"{block}.bn1", after)
        shapes |= {f"{block}.conv2.weight": (after, after, 3, 3)} | norm(f"{block}.bn2", after)
        shapes |= {f"{block}.nolinear1.weight": (after,), f"{block}.nolinear2.weight": (after,)}
    return shapes


def generator_shapes(components: int) -> Shapes:
    return {
        "fc1.1.weight": (512, 25088),
        "fc1.1.bias": (512,),
        **norm("fc1.2", 512),
        "fc1.3.weight": (512,),
        "memory.units.weight": (128, 512),
        "fc2.0.weight": (components, 512),
        "fc2.0.bias": (components,),
        **norm("fc2.1", components),
    }


def ir_shapes(*, squeeze: bool, side: bool) -> Shapes:
    shapes: Shapes = {"input_layer.0.weight": (64, 3, 3, 3), "input_layer.2.weight": (64,)} | norm("input_layer.1", 64)
    widths = [64] * 4 + [128] * 4 + [256] * 14 + [512] * 3
    with_convolution = (0, 3, 7, 21) if side else (3, 7, 21)
    prelu, second, last = (3, 4, 5) if side else (2, 3, 4)
    for index in range(24):
        before, after, res = widths[index], widths[index + 1], f"body.{index}.res_layer"
        if index in with_convolution:
            shortcut = f"body.{index}.shortcut_layer"
            shapes |= {f"{shortcut}.0.weight": (after, before, 1, 1)} | norm(f"{shortcut}.1", after)
        shapes |= norm(f"{res}.0", before) | {f"{res}.1.weight": (after, before, 3, 3)}
        if side:
            shapes |= norm(f"{res}.2", after)
        shapes |= {f"{res}.{prelu}.weight": (after,), f"{res}.{second}.weight": (after, after, 3, 3)}
        shapes |= norm(f"{res}.{last}", after)
        if squeeze:
            shapes[f"{res}.{last + 1}.fc1.weight"] = (after // 16, after, 1, 1)
            shapes[f"{res}.{last + 1}.fc2.weight"] = (after, after // 16, 1, 1)
    shapes |= norm("output_layer.0", 512) | norm("output_layer.4", 512)
    return shapes | {"output_layer.3.weight": (512, 25088), "output_layer.3.bias": (512,)}


def iresnet_shapes(*counts: int) -> Shapes:
    shapes: Shapes = {"conv1.weight": (64, 3, 3, 3), "prelu.weight": (64,)} | norm("bn1", 64)
    before = 64
    for layer, (after, count) in enumerate(zip((64, 128, 256, 512), counts, strict=True), start=1):
        for index in range(count):
            block = f"layer{layer}.{index}"
            shapes |= norm(f"{block}.bn1", before) | norm(f"{block}.bn2", after) | norm(f"{block}.bn3", after)
            shapes[f"{block}.conv1.weight"] = (after, before, 3, 3)
            shapes[f"{block}.conv2.weight"] = (after, after, 3, 3)
            shapes[f"{block}.prelu.weight"] = (after,)
            if index == 0:
                shapes |= {f"{block}.downsample.0.weight": (after, before, 1, 1)}
                shapes |= norm(f"{block}.downsample.1", after)
            before = after
    shapes |= norm("bn2", 512) | norm("features", 512)
    return shapes | {"fc.weight": (512, 25088), "fc.bias": (512,)}


def _mobilefacenet_convolution(name: str, shape: tuple[int, ...], *, prelu: bool = True) -> Shapes:
    slope: Shapes = {f"{name}.prelu.weight": (shape[0],)} if prelu else {}
    return {f"{name}.conv.weight": shape} | norm(f"{name}.bn", shape[0]) | slope


def mobilefacenet_shapes() -> Shapes:
    shapes = _mobilefacenet_convolution("conv1", (64, 3, 3, 3))
    shapes |= _mobilefacenet_convolution("dw_conv1", (64, 1, 3, 3))
    inputs = [64] * 6 + [128] * 9
    inner = [128] * 5 + [256] * 7 + [512] + [256] * 2
    outputs = [64] * 5 + [128] * 10
    for index, (before, middle, after) in enumerate(zip(inputs, inner, outputs, strict=True)):
        conv = f"blocks.{index}.conv"
        shapes |= {f"{conv}.0.weight": (middle, before, 1, 1), f"{conv}.2.weight": (middle,)}
        shapes |= {f"{conv}.3.weight": (middle, 1, 3, 3), f"{conv}.5.weight": (middle,)}
        shapes |= {f"{conv}.6.weight": (after, middle, 1, 1)} | norm(f"{conv}.7", after)
        shapes |= norm(f"{conv}.1", middle) | norm(f"{conv}.4", middle)
    shapes |= _mobilefacenet_convolution("conv2", (512, 128, 1, 1))
    shapes |= _mobilefacenet_convolution("linear7", (512, 1, 7, 6), prelu=False)
    return shapes | _mobilefacenet_convolution("linear1", (128, 512, 1, 1), prelu=False)


def square_mobilefacenet_shapes() -> Shapes:
    def block(name: str, before: int, inner: int, after: int) -> Shapes:
        shapes = _mobilefacenet_convolution(f"{name}.conv", (inner, before, 1, 1))
        shapes |= _mobilefacenet_convolution(f"{name}.conv_dw", (inner, 1, 3, 3))
        return shapes | _mobilefacenet_convolution(f"{name}.project", (after, inner, 1, 1), prelu=False)

    shapes = _mobilefacenet_convolution("conv1", (64, 3, 3, 3)) | _mobilefacenet_convolution("conv2_dw", (64, 1, 3, 3))
    shapes |= block("conv_23", 64, 128, 64) | block("conv_34", 64, 256, 128) | block("conv_45", 128, 512, 128)
    for name, count, width, inner in (("conv_3", 4, 64, 128), ("conv_4", 6, 128, 256), ("conv_5", 2, 128, 256)):
        for index in range(count):
            shapes |= block(f"{name}.model.{index}", width, inner, width)
    shapes |= _mobilefacenet_convolution("conv_6_sep", (512, 128, 1, 1))
    shapes |= _mobilefacenet_convolution("conv_6_dw", (512, 1, 7, 7), prelu=False)
    return shapes | {"linear.weight": (512, 512)} | norm("bn", 512)


@pytest.fixture(scope="package", autouse=True)
def one_thread(one_torch_thread: Any) -> Iterator[None]:
    """Keep torch on one thread: on a busy machine its waiting threads cost more than they give here."""
    with one_torch_thread():
        yield


@pytest.fixture(scope="session")
def public_shapes() -> dict[str, Shapes]:
    """Keys and shapes by network; the purifier's for 40 eigenfaces."""
    return {
        "encoder": encoder_shapes(),
        "pca_layer": generator_shapes(40),
        "pca_layer 1500": generator_shapes(1500),
        "ir50": ir_shapes(squeeze=False, side=False),
        "irse50": ir_shapes(squeeze=True, side=False),
        "ir50_side": ir_shapes(squeeze=False, side=True),
        "irse50_side": ir_shapes(squeeze=True, side=True),
        "iresnet18": iresnet_shapes(2, 2, 2, 2),
        "iresnet34": iresnet_shapes(3, 4, 6, 3),
        "iresnet50": iresnet_shapes(3, 4, 14, 3),
        "iresnet100": iresnet_shapes(3, 13, 30, 3),
        "iresnet200": iresnet_shapes(6, 26, 60, 6),
        "mobilefacenet_square": square_mobilefacenet_shapes(),
        "mobilefacenet": mobilefacenet_shapes(),
    }


@pytest.fixture(scope="session")
def random_state(public_shapes: dict[str, Shapes]) -> Any:
    """Make plausible weights for a network of `public_shapes`, every BatchNorm away from the identity."""
    torch = pytest.importorskip("torch")

    def value(key: str, shape: tuple[int, ...], generator: Any) -> Any:
        if key.endswith("num_batches_tracked"):
            return torch.tensor(7)
        noise = torch.rand(shape, generator=generator).sub_(0.5)
        if len(shape) == 1:  # scales, slopes, biases, means, variances: all around one half
            return 0.5 + 0.5 * noise
        return noise.mul_(3 / noise[0].numel() ** 0.5)

    def make(network: str, under: str = "") -> dict[str, Any]:
        generator = torch.Generator().manual_seed(zlib.crc32(f"{network}/{under}".encode()))  # whoever asked before
        shapes = public_shapes[network].items()
        return {key: value(key, shape, generator) for key, shape in shapes if key.startswith(under)}

    return make


@pytest.fixture(scope="session")
def thin_state(public_shapes: dict[str, Shapes]) -> Any:
    """Make weights for a network of `public_shapes`, each one stored number: a small file of any shape."""
    torch = pytest.importorskip("torch")

    def make(network: str) -> dict[str, Any]:
        shapes = public_shapes[network].items()
        return {key: torch.tensor(index % 97 / 97).expand(shape) for index, (key, shape) in enumerate(shapes)}

    return make


@pytest.fixture(scope="session")
def normalised() -> Any:
    """BatchNorm in evaluation mode as a plain function of (state, name, values)."""
    functional = pytest.importorskip("torch").nn.functional

    def apply(state: dict[str, Any], name: str, values: Any) -> Any:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return functional.batch_norm(values, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"])

    return apply
