"""The same work by torch's own operations, captured into a CUDA graph, replayed on the same stream."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from gpu_cases import KEEP, eigenfaces
from gpu_timing import Bench, Work

WORDS = {
    "select": "rand, compare, bmm, topk, gather",
    "project": "sub, matmul",
    "act": "mul, addmm, expand",
    "project+act": "sub, matmul, mul, addmm, expand",
    "match": "matmul, topk",
}
"""By which operations, by the first word of a case's key."""


def why_not() -> str:
    """Why torch can not be compared with; empty where it can."""
    if find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return "" if torch.cuda.is_available() else "torch sees no GPU"


class TorchWays:
    """Makes captured graphs of torch's operations.

    Args:
        bench: on whose stream they run; torch shares its device's primary context.
        components: rows of the eigenfaces.
    """

    def __init__(self, bench: Bench, components: int) -> None:
        import torch

        self._torch = torch
        self._stream = torch.cuda.ExternalStream(bench.stream.address)
        mean, rows = eigenfaces(components)
        self._mean, self._rows = (torch.from_numpy(values).cuda() for values in (mean, rows))

    def way(self, key: tuple[Any, ...]) -> Work | None:
        """A replay of the captured way, or None where there is none."""
        if not key:
            return None
        made: Callable[..., Callable[[], Any] | None] = getattr(self, "_" + key[0].replace("+", "_and_"))
        operations = made(*key[1:])
        return None if operations is None else self._captured(operations)

    def _captured(self, operations: Callable[[], Any]) -> Work:
        torch = self._torch
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            with torch.cuda.stream(self._stream):
                for _ in range(3):
                    operations()
            torch.cuda.synchronize()
            with torch.cuda.graph(graph, stream=self._stream):
                held = operations()

        def replay(held: Any = held) -> None:  # the graph writes to what it returned
            with torch.cuda.stream(self._stream):
                graph.replay()

        return replay

    def _select(self, genes: int, count: int, batch: int) -> Callable[[], Any]:
        torch = self._torch
        p = torch.rand((batch, 1, genes), device="cuda")
        weights = torch.randn((batch, genes, 1), device="cuda")

        def operations() -> Any:
            masks = torch.rand((batch, count, genes), device="cuda") < p
            scores = torch.bmm(masks.float(), weights)[..., 0]
            winners = scores.topk(min(KEEP, count), dim=1).indices
            return winners, masks.gather(1, winners[:, :, None].expand(-1, -1, genes))

        return operations

    def _basis(self, precision: str) -> Any:
        kinds = {"fp32": self._torch.float32, "fp16": self._torch.float16}
        return self._rows.to(kinds[precision]) if precision in kinds else None

    def _project(self, precision: str, batch: int) -> Callable[[], Any] | None:
        rows = self._basis(precision)
        faces = self._torch.rand((batch, len(self._mean)), device="cuda")
        return None if rows is None else lambda: (faces - self._mean).to(rows.dtype) @ rows.T

    def _act(self, precision: str, batch: int, name: str) -> Callable[[], Any] | None:
        rows = self._basis(precision)
        if rows is None:
            return None
        share = 1.1 if name == "all chosen" else 1 / 3
        c = self._torch.randn((batch, len(rows)), device="cuda")
        return self._acting(rows, batch, share, lambda: c)

    def _project_and_act(self, precision: str, batch: int) -> Callable[[], Any] | None:
        project, rows = self._project(precision, batch), self._basis(precision)
        return None if project is None else self._acting(rows, batch, 1 / 3, project)

    def _acting(self, rows: Any, batch: int, share: float, coefficients: Callable[[], Any]) -> Callable[[], Any]:
        torch = self._torch
        antibody = (torch.rand((batch, len(rows)), device="cuda") < share).to(rows.dtype)
        mean, side = self._mean.to(rows.dtype), round(len(self._mean) ** 0.5)

        def operations() -> Any:
            faces = torch.addmm(mean, coefficients().to(rows.dtype) * antibody, rows)
            return faces.float().view(batch, 1, side, side).expand(-1, 3, -1, -1).contiguous()

        return operations

    def _match(self, count: int, batch: int) -> Callable[[], Any]:
        torch = self._torch
        templates = torch.nn.functional.normalize(torch.randn((count, 512), device="cuda"))
        embeddings = templates[torch.from_numpy(np.arange(batch))].clone()
        return lambda: (embeddings @ templates.T).topk(2, dim=1)
