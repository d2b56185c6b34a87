"""The processes that share a batch (torchrun), or the one that has it all."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from immunogate.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """This process among its peers.

    Attributes:
        rank: number of this process, from 0.
        count: of all processes.
    """

    rank: int = 0
    count: int = 1

    @staticmethod
    def from_environment() -> Processes:
        """Join the processes that torchrun has started, or be the only one."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return Processes()
        if not dist.is_initialized():
            # Both: what is agreed upon lies on the CPU, gradients where the network is.
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        return Processes(dist.get_rank(), count)

    def device(self, asked: str | None = None) -> torch.device:
        """Where this process computes: as asked, else its own GPU where there are any, else the CPU.

        Raises:
            UsageError: a GPU is asked for and there is none.
        """
        if asked not in (None, "cpu", "cuda"):
            raise UsageError(f"unknown device {asked!r}", "Use cpu or cuda")
        if asked == "cuda" and not torch.cuda.is_available():
            raise UsageError("there is no CUDA device, or this build of torch can not use it", "Use --device cpu")
        if asked == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))

    @property
    def leads(self) -> bool:
        """Whether this is the process that reports and saves."""
        return self.rank == 0

    def sum_gradients(self, network: nn.Module) -> None:
        """Add up everybody's gradients; each had divided by the size of the whole batch."""
        if self.count > 1:
            for parameter in network.parameters():
                if parameter.requires_grad:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    dist.all_reduce(parameter.grad)

    @torch.no_grad()
    def average_buffers(self, network: nn.Module) -> None:
        """Bring running statistics and memory slots together; they are the mean of what each process made of them."""
        if self.count > 1:
            slots = [parameter for parameter in network.parameters() if not parameter.requires_grad]
            for value in (*network.buffers(), *slots):
                if value.is_floating_point():
                    dist.all_reduce(value)
                    value /= self.count

    def any_asks(self, asks: bool) -> bool:
        """Whether any process says yes; all get the same answer."""
        return self._greatest(float(asks)) > 0

    def from_leader(self, value: float) -> float:
        """The leading process's value, in all of them; the others' are not looked at."""
        if self.count == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(held, 0)
        return float(held)

    def _greatest(self, value: float) -> float:
        if self.count == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return float(held)
