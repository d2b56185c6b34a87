"""The living definition of every kernel, in NumPy and for reading. Speed lives elsewhere.

Symbols: B faces, K clones, n eigenfaces (genes), D pixels, W = ceil(n / 32) words of a mask. Gene i of a mask is
bit i % 32 of word i // 32. Faces are (B, D) float32 in [-1, 1]; the basis is (n, D), its rows are eigenfaces.
Equations: Ren et al., "Artificial Immune System of Secure Face Recognition Against Adversarial Attacks", IJCV 2024.
Scoring and selection at inference are this project's own; the paper draws one clone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from immunogate.basis import LEAST_REMAINDER, MOST_GRAIN
from immunogate.kernels.philox import philox4x32
from immunogate.structs import CROP_SIZE, Floats, Masks, expect_dtype, expect_shape

Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

POINT = 16
"""Bits behind the point of a gene's weight: scores are whole numbers of 2**-16."""

WEIGHT_LIMIT = 2**23 - 1
"""Largest magnitude of a gene's weight in fixed point; sums of 4096 of them stay far inside 64 bits."""

LEAST_PROBABILITY = 2.0**-24
"""Probabilities are kept this far from 0 and 1 before a logarithm is taken."""


@dataclass(frozen=True)
class CloneKey:
    """What a clone's genes depend on besides its number: replaying a decision means giving the same key again.

    Attributes:
        seed: 64-bit key of the generator.
        frames: (B,) uint32 index of each face's frame.
        faces: (B,) uint32 number of each face, its track for instance; not its place in the batch.
    """

    seed: int
    frames: npt.NDArray[np.uint32]
    faces: npt.NDArray[np.uint32]

    def __post_init__(self) -> None:
        if self.frames.shape != self.faces.shape or self.frames.ndim != 1:
            raise ValueError(
                f"CloneKey: expected frames and faces of one shape (B,), got {self.frames.shape}, {self.faces.shape}"
            )
        expect_dtype("CloneKey.frames", self.frames, np.uint32)
        expect_dtype("CloneKey.faces", self.faces, np.uint32)


@dataclass(frozen=True)
class ScoreTerms:
    """How much each term of a clone's score counts.

    Attributes:
        residual: for the mean square of what the antibody explains, sum of a_i c_i^2 / D. Alone it would keep
            every eigenface and with them the attack.
        size: taken off for each chosen eigenface (the paper's regulariser is 3e-3).
        likelihood: for the log-likelihood of the clone under the probabilities, up to a constant: sum of a_i
            logit(p_i).
    """

    residual: float = 1.0
    size: float = 3e-3
    likelihood: float = 1e-2


def project(faces: Floats, mean: Floats, basis: Floats) -> Doubles:
    """Coefficients c = E (x - mu), (B, n) float64."""
    centred = faces.astype(np.float64) - mean.astype(np.float64)
    product: Doubles = centred @ basis.astype(np.float64).T
    return product


def spectrum(faces: Floats, mean: Floats, coefficients: npt.NDArray[np.floating]) -> Doubles:
    """The coefficients and, last, the length of the remainder r = x - mu - E^T c that no eigenface explains.

    The remainder is one more direction, each face's own, with the coefficient |r| = sqrt(|x - mu|^2 - |c|^2), since E
    is orthonormal. A gated antibody has one more gene for it. This project's own; the paper drops the remainder.

    Args:
        faces: (B, D).
        mean: (D,).
        coefficients: (B, n).

    Returns:
        (B, n + 1) float64.
    """
    centred = faces.astype(np.float64) - mean.astype(np.float64)
    c = coefficients.astype(np.float64)
    rest = (centred**2).sum(axis=1) - (c**2).sum(axis=1)
    length = np.sqrt(np.maximum(rest, LEAST_REMAINDER**2))
    return np.concatenate([c, length[:, None]], axis=1)


def grain(faces: Floats) -> Doubles:
    """How noisy each picture is: the mean of |mixed second difference| / 2, each no more than `MOST_GRAIN`.

    White noise of standard deviation s gives 0.8 s; smooth shading and straight edges along either axis give nothing,
    and the limit keeps what texture there is from counting as noise (after Immerkaer, "Fast Noise Variance
    Estimation", CVIU 1996, whose mask is the square of this one). Adversarial noise is grain, unless its maker takes
    care.

    Args:
        faces: (B, D) in [-1, 1], D = 112 x 112.

    Returns:
        (B,) float64, on the scale of [-1, 1].
    """
    rows = faces.astype(np.float64).reshape(-1, CROP_SIZE, CROP_SIZE)
    mixed = rows[:, 1:, 1:] - rows[:, :-1, 1:] - rows[:, 1:, :-1] + rows[:, :-1, :-1]
    found: Doubles = np.minimum(np.abs(mixed) / 2, MOST_GRAIN).mean(axis=(1, 2))
    return found


def analyzer_input(faces: Floats, spectra: npt.NDArray[np.floating]) -> Floats:
    """What an analyzer that reads the spectrum is given: (B, n + 1) spectra and the grain, as (B, n + 2) float32."""
    return np.concatenate([spectra, grain(faces)[:, None]], axis=1).astype(np.float32)


def thresholds(probabilities: Floats) -> npt.NDArray[np.uint32]:
    """floor(p 2^32) as uint32, so that a gene is chosen where its 32-bit draw is below; 1 becomes 2^32 - 1.

    Raises:
        ValueError: a probability is not in [0, 1]; NaN is not.
    """
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise ValueError("probabilities: expected values in [0, 1]")
    scaled = np.floor(probabilities.astype(np.float64) * 2.0**32)
    return np.minimum(scaled, 2.0**32 - 1).astype(np.uint32)


def mutate(probabilities: Floats, clones: Indices, key: CloneKey) -> Masks:
    """Draw the genes of the clones with the given numbers.

    Gene group g of clone k of face f in frame t comes from the counter (g, k, f, t): no state, so any subset in
    any order gives the same genes, and the first K clones are the first K of 2K.

    Args:
        probabilities: (B, n) float32 in [0, 1].
        clones: (B, K) numbers of the clones to draw, 0 .. 2**32 - 1.
        key: seed, frame and face of each row.

    Returns:
        (B, K, W) uint32 bit sets; bits at n and beyond are 0.
    """
    batch, genes = probabilities.shape
    expect_shape("CloneKey.faces", key.faces, (batch,))
    groups = -(-genes // 4)
    counters = np.empty((batch, clones.shape[1], groups, 4), np.uint32)
    counters[..., 0] = np.arange(groups)
    counters[..., 1] = clones[:, :, None]
    counters[..., 2] = key.faces[:, None, None]
    counters[..., 3] = key.frames[:, None, None]
    draws = philox4x32(counters, key.seed).reshape(batch, clones.shape[1], groups * 4)[..., :genes]
    return pack(draws < thresholds(probabilities)[:, None, :])


def pack(chosen: npt.NDArray[np.bool_]) -> Masks:
    """(..., n) booleans to (..., W) uint32 bit sets."""
    genes = chosen.shape[-1]
    padded = np.zeros((*chosen.shape[:-1], -(-genes // 32) * 32), np.bool_)
    padded[..., :genes] = chosen
    return np.packbits(padded, axis=-1, bitorder="little").view("<u4").astype(np.uint32, copy=False)


def unpack(masks: Masks, genes: int) -> npt.NDArray[np.bool_]:
    """(..., W) uint32 bit sets to (..., n) booleans."""
    octets = np.ascontiguousarray(masks).astype("<u4", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=genes, bitorder="little").astype(np.bool_)


def gene_weights(
    probabilities: Floats, coefficients: npt.NDArray[np.floating], terms: ScoreTerms, pixels: int
) -> Indices:
    """Each gene's share of a clone's score in fixed point, (B, n) int64 within +-WEIGHT_LIMIT.

    The score of a clone is the sum of the weights of its genes. It is separable, so its best mask is known in
    closed form (all positive weights); drawing clones serves diversity, not this optimum. It never looks at the
    gallery: the best of K by similarity to a claimed identity would raise the false match rate.

    Raises:
        ValueError: a weight would be NaN.
    """
    p = np.clip(probabilities.astype(np.float64), LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
    weight = (
        terms.residual * coefficients.astype(np.float64) ** 2 / pixels
        - terms.size
        + terms.likelihood * (np.log(p) - np.log1p(-p))
    )
    if np.isnan(weight).any():
        raise ValueError("gene weights: expected numbers, got NaN from probabilities, coefficients or terms")
    return np.clip(np.rint(weight * 2.0**POINT), -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int64)


def score(masks: Masks, weights: Indices) -> Indices:
    """(B, K) int64: the sum of the weights of each clone's genes. Whole numbers, so no order of summing matters."""
    chosen = unpack(masks, weights.shape[-1])
    total: Indices = np.where(chosen, weights[:, None, :], 0).sum(axis=-1)
    return total


def select(scores: Indices, keep: int) -> Indices:
    """(B, keep) int64: the clones with the highest scores, best first, ties by the lowest number.

    Raises:
        ValueError: keep is not in 1 .. K.
    """
    if not 1 <= keep <= scores.shape[1]:
        raise ValueError(f"keep: expected 1 .. {scores.shape[1]}, got {keep}")
    return np.argsort(-scores, axis=1, kind="stable")[:, :keep].astype(np.int64)


def act(
    coefficients: npt.NDArray[np.floating], weights: Floats, mean: Floats, basis: Floats, faces: Floats | None = None
) -> Doubles:
    """x_hat = mu + E^T (a c) for each of m antibodies of each face; gated, mu + E^T (a c) + g r.

    With r = x - mu - E^T c this is mu + E^T ((a - g) c) + g (x - mu): the gate costs no product of its own.

    Args:
        coefficients: (B, n).
        weights: (B, m, n) float32 in [0, 1], a drawn mask as 0 and 1, or soft; gated (B, m, n + 1) with g last.
        mean: (D,).
        basis: (n, D).
        faces: (B, D), needed where the weights are gated.

    Returns:
        (B, m, D) float64.
    """
    genes = coefficients.shape[1]
    antibody, gate = weights[..., :genes].astype(np.float64), weights[..., genes:].astype(np.float64)
    rest: Doubles | float = 0.0
    if gate.shape[-1]:
        if faces is None:
            raise ValueError("faces: gated antibodies need them, got None")
        antibody = antibody - gate
        rest = gate * (faces.astype(np.float64) - mean.astype(np.float64))[:, None, :]
    kept = antibody * coefficients.astype(np.float64)[:, None, :]
    return mean.astype(np.float64) + kept @ basis.astype(np.float64) + rest
