"""Frozen copies of networks that are run forward and backward many thousand times, for the gradient of the input only.

Attacks and rehearsals ask a recogniser for nothing else. Its weights then are constants, so every BatchNorm is an
affine map that a convolution or a linear layer before it takes in, and a PReLU needs no gradient of its slopes, which
is what takes longest in torch on a CPU.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

logger = logging.getLogger(__name__)

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_NOTHING = (nn.Dropout, nn.Identity)


def frozen(network: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose outputs are the network's own up to rounding, and whose weights stay as they are.

    Where the network's flow of data can be traced (every recogniser here), BatchNorms are folded into what feeds them;
    where it can not be, they become affine maps of their own. Convolutions run channels-last. Gradients flow to the
    input once: there are no second derivatives and none of the weights. Batches of 16 or so suit caches best.

    Args:
        network: any module; it is left alone, in whatever mode it is.

    Returns:
        A module of the same inputs and outputs, without any parameter that requires a gradient.
    """
    return folded(network)[0]


def folded(network: nn.Module) -> tuple[nn.Module, dict[str, str]]:
    """What `frozen` gives, and by the name of each layer that took a BatchNorm in the name of that BatchNorm."""
    twin: nn.Module = copy.deepcopy(network).eval().requires_grad_(False)
    norms: dict[str, str] = {}
    try:
        graph = fx.Tracer().trace(twin)
    except Exception as error:  # tracing fails in as many ways as Python code can depend on values
        logger.info("%s can not be traced and keeps its BatchNorms apart: %s", type(network).__name__, error)
    else:
        twin = fx.GraphModule(twin, graph, type(network).__name__)
        norms = _fold(twin)
    _exchange(twin)
    for module in twin.modules():
        if isinstance(module, nn.Conv2d):  # its maps follow the format of its weights
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return twin.eval().requires_grad_(False), norms


class FrozenPReLU(nn.Module):
    """PReLU with constant slopes.

    Args:
        slopes: (C,), or (1,) for one of all channels.
    """

    slopes: Tensor

    def __init__(self, slopes: Tensor) -> None:
        super().__init__()
        self.register_buffer("slopes", slopes.detach().clone())

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, ...) to the same."""
        shape = [1] * maps.ndim
        shape[1 if maps.ndim > 1 else 0] = -1
        bent: Tensor = _Bend.apply(maps, self.slopes.view(shape).to(maps.dtype))  # type: ignore[no-untyped-call]
        return bent


class Affine(nn.Module):
    """A BatchNorm in evaluation mode with constant statistics: scale x + shift for each channel.

    Args:
        norm: with running statistics.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_mean is not None  # `_exchange` asks
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.weight is not None:
            scale = scale * norm.weight
        shift = -norm.running_mean * scale
        if norm.bias is not None:
            shift = shift + norm.bias
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("shift", shift.detach().clone())

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, ...) to the same."""
        shape = (1, -1) + (1,) * (maps.ndim - 2)
        return torch.addcmul(self.shift.view(shape), maps, self.scale.view(shape))


class _Bend(torch.autograd.Function):
    """x where x > 0, else a x. Of the kernels torch has for either direction, these run vectorised on a CPU."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(maps, slopes)
        bent: Tensor = torch._prelu_kernel(maps, slopes)
        return bent

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        maps, slopes = ctx.saved_tensors
        passed = torch.ops.aten.threshold_backward(gradient, maps, 0)  # the gradient where x > 0, else 0
        return torch.lerp(passed, gradient, slopes), None  # passed + a (gradient - passed)


def _fold(traced: fx.GraphModule) -> dict[str, str]:
    """Fold each BatchNorm into the convolution or linear layer that feeds it, and it alone; gives their names."""
    graph, norms = traced.graph, {}
    for node in list(graph.nodes):
        module = _module(traced, node)
        if isinstance(module, _NOTHING):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        elif isinstance(module, _NORMS) and _tracks(module) and _folds_into(traced, node.args[0], module):
            before = node.args[0]
            fed = traced.get_submodule(before.target)
            fuse: Any = fuse_conv_bn_eval if isinstance(fed, nn.Conv2d) else fuse_linear_bn_eval
            _put(traced, before.target, fuse(fed, module))
            norms[str(before.target)] = str(node.target)
            node.replace_all_uses_with(before)
            graph.erase_node(node)
    graph.lint()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return norms


def _module(traced: fx.GraphModule, node: Any) -> nn.Module | None:
    """The module that a node calls, where it calls one and is the only node that does."""
    if not isinstance(node, fx.Node) or node.op != "call_module":
        return None
    module = traced.get_submodule(str(node.target))
    calls = [other for other in traced.graph.nodes if other.op == "call_module"]
    sharing = [other for other in calls if traced.get_submodule(str(other.target)) is module]
    return module if len(sharing) == 1 else None


def _folds_into(traced: fx.GraphModule, before: Any, norm: nn.Module) -> bool:
    """Whether ``before`` is a layer whose only user is the norm, and of its kind."""
    fed = _module(traced, before)
    fits = (isinstance(fed, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)) or (
        isinstance(fed, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
    )
    return fits and len(before.users) == 1


def _tracks(module: nn.Module) -> bool:
    """Without running statistics a BatchNorm is no affine map: it depends on the batch."""
    return getattr(module, "running_mean", None) is not None


def _exchange(network: nn.Module) -> None:
    """Put the quick forms in the places of PReLUs and of the BatchNorms that are left."""
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.PReLU):
            _put(network, name, FrozenPReLU(module.weight))
        elif isinstance(module, _NORMS) and _tracks(module):
            _put(network, name, Affine(module))


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
