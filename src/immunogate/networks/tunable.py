"""A copy of a recogniser that learns quickly on a CPU and is given back under the names that it came with.

Fine-tuning keeps the statistics of every BatchNorm, which then is an affine map that the layer before it takes in. What
learns are convolutions and linear layers with their offsets; the slopes of PReLUs stay, since their gradient takes
longest in torch on a CPU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from immunogate.networks.frozen import folded


class Tunable(nn.Module):
    """The network's own outputs, up to rounding, with weights that learn.

    Args:
        network: of which a copy is made; convolutions and linear layers may share no weights.

    Raises:
        ValueError: it has a BatchNorm of fixed scale and offset, or no layer that could learn.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.body, self._norms = folded(network)
        self._given = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self._deviations = {}
        for norm in self._norms.values():
            module = network.get_submodule(norm)
            if not (isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine):
                raise ValueError(f"{norm} has no scale and offset of its own to give its layer's back in")
            assert module.running_var is not None  # else it would not have been folded
            self._deviations[norm] = (module.running_var.detach() + module.eps).sqrt()
        layers = [part for part in self.body.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
        if not layers:
            raise ValueError(f"{type(network).__name__} has no convolution and no linear layer to tune")
        for layer in layers:
            layer.requires_grad_(True)

    def forward(self, planes: Tensor) -> Tensor:
        """(B, 3, height, width) to (B, E)."""
        embeddings: Tensor = self.body(planes)
        return embeddings

    @torch.no_grad()
    def unfolded(self) -> dict[str, Tensor]:
        """A state dict for the network it was made of: same names and shapes, same outputs as now up to rounding.

        A folded layer keeps its weights, and its BatchNorm gets the scale that leaves them as they are.
        """
        state = {name: value.clone() for name, value in self._given.items()}
        for name, layer in self.body.named_modules():
            if not isinstance(layer, nn.Conv2d | nn.Linear):
                continue
            norm = self._norms.get(name)
            state[f"{name}.weight"] = layer.weight.detach().cpu().contiguous().clone()
            if layer.bias is None:
                continue
            offset = layer.bias.detach().cpu()
            if norm is None:
                state[f"{name}.bias"] = offset.clone()
                continue
            own = state.get(f"{name}.bias", torch.zeros_like(offset)).cpu()
            state[f"{norm}.weight"] = self._deviations[norm].cpu().clone()
            state[f"{norm}.bias"] = offset + state[f"{norm}.running_mean"].cpu() - own
        return state
