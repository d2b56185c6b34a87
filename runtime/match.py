"""Finds the person whose template is nearest."""

from __future__ import annotations

import math

import numpy as np

from immunogate.runtime.gallery import Templates
from immunogate.structs import Floats, Match


def match(templates: Templates, embedding: Floats) -> Match:
    """The best answer to one (E,) embedding of unit length, with its distance to the runner-up."""
    if not templates.names:
        return Match(None, -1.0)
    similarities = templates.vectors @ embedding
    best = int(np.argmax(similarities))
    others = np.delete(similarities, best)
    margin = float(similarities[best] - others.max()) if len(others) else math.inf
    return Match(templates.names[best], float(similarities[best]), margin)


def similarity_to(templates: Templates, person: str | None, embedding: Floats) -> float | None:
    """Cosine of an embedding with one person's template; None where there is no such person."""
    if person is None:
        return None
    return float(templates.vectors[templates.names.index(person)] @ embedding)
