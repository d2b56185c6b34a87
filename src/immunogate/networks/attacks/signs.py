"""Dodging attacks on anything that turns faces into embeddings, for measuring robustness.

A dodging attack changes a genuine face, within a bound that hardly shows, until its embedding no longer resembles
the person's template. All pixels are on the scale [-1, 1]; a bound that the literature states on [0, 1] is half of
the one here (see `from_levels`). Each sample carries its own template, so batches can be cut as one likes.

Neither the network's weights, nor their gradients, nor its statistics, nor torch's global generator are touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

Embed = Callable[[Tensor], Tensor]
"""(B, D) faces in [-1, 1] to (B, E) embeddings of any length above 0, differentiable."""

Bound = float | Tensor
"""One number for all faces, or (B, 1) with one for each, on the scale of [-1, 1]."""


def from_levels(levels: float) -> float:
    """The bound on [-1, 1] that is ``levels`` of 255 grey levels: 8 gives 16/255 here, the 8/255 of [0, 1]."""
    return 2 * levels / 255


def fgsm(embed: Embed, faces: Tensor, templates: Tensor, eps: Bound, *, clamp: bool = True) -> Tensor:
    """One step of size ``eps`` along the sign of the gradient that lowers the cosine with the template.

    Source: Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015. Where the
    template is the face's own embedding under the same ``embed`` the cosine is at its maximum, the gradient is zero
    and its sign is rounding: take the embedding of another picture of the person, or `pgd` with a random start.

    Args:
        embed: what is attacked.
        faces: (B, D) float in [-1, 1].
        templates: (B, E), row i is the embedding that face i must no longer resemble.
        eps: largest change of a pixel, on the scale of [-1, 1]; one number, or (B, 1).
        clamp: keep the result a picture; published attacks that do not are stronger than any camera could show.

    Returns:
        (B, D) attacked faces in [-1, 1], none further than ``eps`` from its face in any pixel.

    Raises:
        ValueError: shapes disagree, values are out of range, or ``embed`` is a module in training mode, whose
            statistics the attack would change.
    """
    _check(embed, faces, templates, eps)
    clean = faces.detach()
    _, gradient = _cosine_and_gradient(embed, clean, templates)
    attacked = clean - eps * gradient.sign()
    return _inside(attacked, clean, eps) if clamp else attacked


def pgd(
    embed: Embed,
    faces: Tensor,
    templates: Tensor,
    eps: Bound,
    steps: int,
    step_size: Bound | None = None,
    *,
    random_start: bool = True,
    restarts: int = 1,
    seed: int = 0,
    best: bool = True,
    start: Tensor | None = None,
) -> Tensor:
    """Projected descent of the cosine with the template inside the L-infinity ball, by the sign of the gradient.

    Source: Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018. Few steps
    flatter a defence: double them until the rate no longer moves.

    Args:
        embed: what is attacked; deterministic, or the best of a trajectory is the best of its noise.
        faces: (B, D) float in [-1, 1].
        templates: (B, E), row i is the embedding that face i must no longer resemble.
        eps: largest change of a pixel, on the scale of [-1, 1]; one number, or (B, 1).
        steps: gradient steps of each restart.
        step_size: of one step; by default 2.5 eps / steps, which can cross the ball and come back.
        random_start: begin at a uniform draw from the ball instead of at the face itself.
        restarts: trajectories; each face keeps the result that was worst for it. Without a random start they would
            all be the same.
        seed: of the random starts; the same for the same (B, D), whatever else draws random numbers.
        best: take the worst point of the whole trajectory, else that at its end.
        start: (B, D) points to begin the first trajectory at, brought into the ball; by default it is drawn.

    Returns:
        (B, D) attacked faces in [-1, 1], none further than ``eps`` from its face in any pixel.

    Raises:
        ValueError: as `fgsm`; or steps or restarts below 1, a step size not above 0, or restarts without a random
            start.
    """
    _check(embed, faces, templates, eps)
    if steps < 1 or restarts < 1 or (restarts > 1 and not random_start):
        raise ValueError(
            "expected steps and restarts of at least 1, and more restarts only with a random start, got "
            f"{steps} steps, {restarts} restarts, random_start={random_start}"
        )
    size = 2.5 * eps / steps if step_size is None else step_size
    if bool(((torch.as_tensor(size) <= 0) & (torch.as_tensor(eps) > 0)).any()):
        raise ValueError(f"step_size: expected more than 0, got {size}")
    clean = faces.detach()
    generator = torch.Generator().manual_seed(seed)
    found, lowest = clean.clone(), torch.full_like(clean[:, 0], torch.inf)
    for restart in range(restarts):
        begin = _random_point(clean, eps, generator) if random_start else clean
        if start is not None and restart == 0:
            begin = _inside(start.detach(), clean, eps)
        for point, cosine in _trajectory(embed, clean, begin, templates, (eps, size), steps, best):
            better = cosine < lowest
            found[better], lowest[better] = point[better], cosine[better]
    return found


def _trajectory(
    embed: Embed, clean: Tensor, start: Tensor, templates: Tensor, bounds: tuple[Bound, Bound], steps: int, whole: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Points with their (B,) cosines, start and end included, or the end alone; bounds are eps and the step size."""
    (eps, size), point = bounds, start
    for _ in range(steps):
        cosine, gradient = _cosine_and_gradient(embed, point, templates)
        if whole:
            yield point, cosine
        point = _inside(point - size * gradient.sign(), clean, eps)
    with torch.no_grad():
        last = _cosine(embed(point), templates)
    yield point, last


def _cosine_and_gradient(embed: Embed, faces: Tensor, templates: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) cosines and (B, D) their gradients; autograd.grad leaves the gradients of weights alone."""
    point = faces.detach().requires_grad_()
    with torch.enable_grad():
        cosine = _cosine(embed(point), templates)
        (gradient,) = torch.autograd.grad(cosine.sum(), point)
    return cosine.detach(), gradient


def _cosine(embeddings: Tensor, templates: Tensor) -> Tensor:
    return torch.cosine_similarity(embeddings, templates.detach(), dim=1)


def _random_point(clean: Tensor, eps: Bound, generator: torch.Generator) -> Tensor:
    noise = torch.rand(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)
    return _inside(clean + eps * (2 * noise - 1), clean, eps)


def _inside(points: Tensor, clean: Tensor, eps: Bound) -> Tensor:
    """The nearest points in the ball around ``clean`` that are pictures."""
    return torch.maximum(torch.minimum(points, clean + eps), clean - eps).clamp(-1, 1)


def _check(embed: Embed, faces: Tensor, templates: Tensor, eps: Bound) -> None:
    if faces.ndim != 2 or templates.ndim != 2 or len(faces) != len(templates):
        raise ValueError(
            f"expected faces (B, D) and templates (B, E), got {tuple(faces.shape)} and {tuple(templates.shape)}"
        )
    if len(faces) and not (faces.min() >= -1 and faces.max() <= 1):
        raise ValueError(f"faces: expected values in [-1, 1], got {faces.min():.4g} to {faces.max():.4g}")
    bounds = torch.as_tensor(eps)
    if bounds.shape not in ((), (len(faces), 1)):
        raise ValueError(f"eps: expected one number or ({len(faces)}, 1), got {tuple(bounds.shape)}")
    if bounds.numel() and not 0 <= float(bounds.min()) <= float(bounds.max()) <= 2:
        raise ValueError(f"eps: expected 0 to 2 on the scale of [-1, 1], got {eps}")
    refuse_training(embed)


def refuse_training(embed: object) -> None:
    """Refuse a network, or a method of one, whose statistics an attack would change.

    Raises:
        ValueError: a part of it is in training mode.
    """
    module = getattr(embed, "__self__", embed)
    if isinstance(module, nn.Module) and any(part.training for part in module.modules()):
        raise ValueError("embed is in training mode: an attack would change its BatchNorm statistics; call eval()")
